-- now, list…: {ready, scheduled, leased} of each.
promote(clock(ARGV[1]))
local answer = {}
local owners = redis.call('ZRANGE', P .. 'umbel.owners', 0, -1)
for n = 2, #ARGV do
  local list, leased = ARGV[n], 0
  local ready = redis.call('LLEN', P .. list)
  for _, owner in ipairs(owners) do
    leased = leased + redis.call('HLEN', held_key(owner, list))
    ready = ready + redis.call('LLEN', staged_key(owner, list))
  end
  answer[#answer + 1] = {ready, tonumber(redis.call('HGET', P .. 'umbel.scheduled.count', list) or 0), leased}
end
return answer
