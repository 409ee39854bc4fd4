-- owner, now, seconds, call, again, (list, envelope, note)…: store messages as leased; answers the first number.
local owner, deadline = ARGV[1], clock(ARGV[2]) + tonumber(ARGV[3])
if ARGV[5] == '1' then
  local last = redis.call('GET', P .. 'umbel.call.' .. owner)
  local number, first = string.match(last or '', '^(%S+) (%d+) %d+$')
  if number == ARGV[4] then return first end
end
local count = (#ARGV - 5) / 3
redis.call('ZADD', P .. 'umbel.owners', deadline, owner)
local first = redis.call('INCRBY', P .. 'umbel.tag', count) - count + 1
for n = 6, #ARGV, 3 do
  local number = string.format('%.0f', first + (n - 6) / 3)
  redis.call('HSET', held_key(owner, ARGV[n]), number, ARGV[n + 1])
  redis.call('HSET', P .. 'umbel.notes.' .. owner, number, ARGV[n + 2])
  redis.call('SADD', P .. 'umbel.lists.' .. owner, ARGV[n])
end
first = string.format('%.0f', first)
redis.call('SET', P .. 'umbel.call.' .. owner, ARGV[4] .. ' ' .. first .. ' ' .. count, 'EX', 86400)
return first
