-- now, list…: {ready, scheduled, leased} of each.
local answer, due = {}, {}
local text = string.format('%.17g', clock(ARGV[1]))
-- What is due and not fetched yet counts as ready.
for _, member in ipairs(redis.call('ZRANGEBYSCORE', P .. 'umbel.scheduled', '-inf', text)) do
  local list = string.sub(member, 1, string.find(member, '\0', 1, true) - 1)
  due[list] = (due[list] or 0) + 1
end
local owners = redis.call('ZRANGE', P .. 'umbel.owners', 0, -1)
for n = 2, #ARGV do
  local list, leased = ARGV[n], 0
  local ready = redis.call('LLEN', P .. list)
  for _, owner in ipairs(owners) do
    leased = leased + redis.call('HLEN', held_key(owner, list))
    ready = ready + redis.call('LLEN', staged_key(owner, list))
  end
  local later = tonumber(redis.call('HGET', P .. 'umbel.scheduled.count', list) or 0) - (due[list] or 0)
  answer[#answer + 1] = {ready + (due[list] or 0), math.max(later, 0), leased}
end
return answer
