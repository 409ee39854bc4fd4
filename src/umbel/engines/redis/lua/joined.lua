-- group…: {place of the group, payloads} of those that are complete.
local answer = {}
for n, name in ipairs(ARGV) do
  local payloads = payloads_of(name)
  if payloads then answer[#answer + 1] = {n - 1, payloads} end
end
return answer
