-- (group, size)…: take sizes; answers {place of the group, payloads} for each group to be told of.
local answer = {}
for n = 1, #ARGV, 2 do
  if expect_group(ARGV[n], ARGV[n + 1]) then answer[#answer + 1] = {(n - 1) / 2, payloads_of(ARGV[n])} end
end
return answer
