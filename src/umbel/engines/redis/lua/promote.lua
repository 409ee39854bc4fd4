-- Make ready what is due, oldest first; returns when the next is due, or ''.
local function promote(now)
  local key = P .. 'umbel.scheduled'
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
  if not first or tonumber(first) > now then return first or '' end
  local due = redis.call('ZRANGEBYSCORE', key, '-inf', string.format('%.17g', now), 'LIMIT', 0, 500)
  local counts = {}
  for _, member in ipairs(due) do
    local cut = string.find(member, '\0', 1, true)
    local list = string.sub(member, 1, cut - 1)
    redis.call('LPUSH', P .. list, string.sub(member, cut + 1))
    counts[list] = (counts[list] or 0) + 1
  end
  in_chunks('ZREM', key, due)
  for list, count in pairs(counts) do
    if redis.call('HINCRBY', P .. 'umbel.scheduled.count', list, -count) <= 0 then
      redis.call('HDEL', P .. 'umbel.scheduled.count', list)
    end
  end
  return redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2] or ''
end
