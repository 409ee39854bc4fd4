-- (group, index, payload, size)…: take parts; answers {place of the part, payload…} for each group to be told of.
local told, answer = {}, {}
for n = 1, #ARGV, 4 do
  if join_part(ARGV[n], ARGV[n + 1], ARGV[n + 2], ARGV[n + 3]) and not told[ARGV[n]] then
    told[ARGV[n]] = true
    answer[#answer + 1] = {(n - 1) / 4, payloads_of(ARGV[n])}
  end
end
return answer
