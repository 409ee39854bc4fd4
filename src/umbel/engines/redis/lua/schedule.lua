-- Put a message away until `due`; tells idle consumers when it comes before all others.
local function schedule(list, raw, due)
  local key = P .. 'umbel.scheduled'
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
  if redis.call('ZADD', key, due, list .. '\0' .. raw) == 1 then
    redis.call('HINCRBY', P .. 'umbel.scheduled.count', list, 1)
  end
  if not first or tonumber(due) < tonumber(first) then
    redis.call('PUBLISH', P .. 'umbel.due', due)
  end
end
