-- (group, index, payload, size, member)…: take parts; answers {place of the part, payload…} for each group to be told of.
local told, answer = {}, {}
for n = 1, #ARGV, 5 do
  local name = ARGV[n]
  if join_part(name, ARGV[n + 1], ARGV[n + 2], ARGV[n + 3], ARGV[n + 4]) and not told[name] then
    told[name] = true
    answer[#answer + 1] = {(n - 1) / 5, payloads_of(name)}
  end
end
return answer
