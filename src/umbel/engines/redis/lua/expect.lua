-- now, (group, size)…: take sizes; answers {place of the group, payloads, body} for each group to be told of.
local answer = {}
for n = 2, #ARGV, 2 do
  if expect_group(ARGV[n], ARGV[n + 1]) then
    answer[#answer + 1] = {(n - 2) / 2, payloads_of(ARGV[n]), await_confirmation(ARGV[n], ARGV[1])}
  end
end
return answer
