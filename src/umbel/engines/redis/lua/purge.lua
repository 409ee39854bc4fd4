-- list…: delete what is ready and scheduled in the lists; answers how many.
local gone, late = 0, {}
for n = 1, #ARGV do
  gone = gone + redis.call('LLEN', P .. ARGV[n])
  redis.call('DEL', P .. ARGV[n])
  if redis.call('HDEL', P .. 'umbel.scheduled.count', ARGV[n]) == 1 then late[ARGV[n]] = true end
end
if next(late) then
  local key, members = P .. 'umbel.scheduled', {}
  for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do
    if late[string.sub(member, 1, string.find(member, '\0', 1, true) - 1)] then members[#members + 1] = member end
  end
  if #members > 0 then in_chunks('ZREM', key, members) end
  gone = gone + #members
end
return gone
