-- Dead letters: hash `umbel.dead`, number → letter, and the numbers in order.
local function bury(letter)
  local number = redis.call('INCR', P .. 'umbel.dead.last')
  redis.call('HSET', P .. 'umbel.dead', number, letter)
  redis.call('ZADD', P .. 'umbel.dead.order', number, number)
  return number
end
