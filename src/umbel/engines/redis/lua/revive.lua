-- (number, list, envelope, key of the result)…: send dead letters again, their results forgotten; answers how many.
local sent = 0
for n = 1, #ARGV, 4 do
  if redis.call('HDEL', P .. 'umbel.dead', ARGV[n]) == 1 then
    redis.call('ZREM', P .. 'umbel.dead.order', ARGV[n])
    redis.call('DEL', ARGV[n + 3])
    redis.call('LPUSH', P .. ARGV[n + 1], ARGV[n + 2])
    sent = sent + 1
  end
end
return sent
