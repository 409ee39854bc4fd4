-- number…: delete dead letters; answers how many.
local gone = 0
for n = 1, #ARGV do
  redis.call('ZREM', P .. 'umbel.dead.order', ARGV[n])
  gone = gone + redis.call('HDEL', P .. 'umbel.dead', ARGV[n])
end
return gone
