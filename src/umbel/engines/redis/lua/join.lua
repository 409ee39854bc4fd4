-- now, anew, (group, index, payload, size, member, body)…: take parts; answers {place of the part, payloads, body} for
-- each group to be told of. A body that is '=' is the last one that was given, '' is none. With anew = 1 the groups are
-- forgotten before.
local told, answer, given, body = {}, {}, nil, nil
if ARGV[2] == '1' then
  for n = 3, #ARGV, 6 do forget_group(ARGV[n], 0) end
end
for n = 3, #ARGV, 6 do
  local name = ARGV[n]
  body = ARGV[n + 5]
  if body == '=' then body = given elseif body ~= '' then given = body end
  if join_part(name, ARGV[n + 1], ARGV[n + 2], ARGV[n + 3], ARGV[n + 4], body) and not told[name] then
    told[name] = true
    answer[#answer + 1] = {(n - 3) / 6, payloads_of(name), await_confirmation(name, ARGV[1])}
  end
end
return answer
