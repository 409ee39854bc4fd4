-- heir, now, seconds, limit, call, again, keep, number of dead, dead owner…, number of lists, list… (none: all)
-- Answers {now, entries}; an entry is {list, number, raw, note} of a message that now belongs to the heir.
even_when_full()
local heir, now, limit = ARGV[1], clock(ARGV[2]), tonumber(ARGV[4])
local deadline, keep = now + tonumber(ARGV[3]), tonumber(ARGV[7])
local before = taken_before('takeover', heir, ARGV[5], ARGV[6])
if before then return {string.format('%.17g', now), before} end
local owners, seen, wanted = {}, {}, nil
local dead = tonumber(ARGV[8])
for n = 9, 8 + dead do
  if redis.call('ZSCORE', P .. 'umbel.owners', ARGV[n]) then
    owners[#owners + 1] = ARGV[n]
    seen[ARGV[n]] = true
  end
end
for n = 10 + dead, #ARGV do
  wanted = wanted or {}
  wanted[ARGV[n]] = true
end
for _, owner in ipairs(redis.call('ZRANGEBYSCORE', P .. 'umbel.owners', '-inf', string.format('%.17g', now))) do
  if not seen[owner] then owners[#owners + 1] = owner end
end

local found, first = {}, nil

local function take_over(owner, list)
  local from, notes = held_key(owner, list), P .. 'umbel.notes.' .. owner
  local numbers = redis.call('HKEYS', from)
  table.sort(numbers, function(a, b) return tonumber(a) < tonumber(b) end)
  for _, number in ipairs(numbers) do
    if #found >= limit then return end
    local held, note = redis.call('HGET', from, number), redis.call('HGET', notes, number)
    local raw = envelope_of(number, held)
    local bumps, ticket, former = string.match(note or '', '^(%d+) (%d+) (.-) *$')
    if not former or former == '' then former = owner end
    note = string.format('%d %s %s', tonumber(bumps or 0) + 1, ticket or '0', former)
    redis.call('HDEL', from, number)
    redis.call('HDEL', notes, number)
    local fresh = string.format('%.0f', redis.call('INCR', P .. 'umbel.tag'))
    first = first or fresh
    redis.call('HSET', held_key(heir, list), fresh, held)
    if held == '' and redis.call('EXISTS', large_key(number)) == 1 then
      redis.call('RENAME', large_key(number), large_key(fresh))
      redis.call('SET', has_large_key(heir), '1')
    end
    redis.call('HSET', P .. 'umbel.notes.' .. heir, fresh, note)
    follow_adopted(raw, number, fresh, list, heir)
    redis.call('SADD', P .. 'umbel.lists.' .. heir, list)
    redis.call('SET', P .. 'umbel.lost.' .. owner, '1', 'EX', 86400)
    found[#found + 1] = {list, fresh, raw, note}
  end
end

for _, owner in ipairs(owners) do
  if owner ~= heir then
    local empty = true
    for _, list in ipairs(redis.call('SMEMBERS', P .. 'umbel.lists.' .. owner)) do
      -- What a waiting connection had moved was never leased: it is simply next again.
      while true do
        local raw = redis.call('LPOP', staged_key(owner, list))
        if not raw then break end
        redis.call('RPUSH', P .. list, raw)
      end
      if not wanted or wanted[list] then take_over(owner, list) end
      if redis.call('EXISTS', held_key(owner, list)) == 1 then empty = false end
    end
    local score = tonumber(redis.call('ZSCORE', P .. 'umbel.owners', owner))
    -- Its connections may still be waiting at the server: it is remembered until they cannot be any more.
    if empty and score + keep < now then
      redis.call('ZREM', P .. 'umbel.owners', owner)
      redis.call('DEL', P .. 'umbel.lists.' .. owner, P .. 'umbel.notes.' .. owner, has_large_key(owner))
    end
  end
end
if #found > 0 then redis.call('ZADD', P .. 'umbel.owners', deadline, heir) end
if #found > 0 or ARGV[6] == '1' then keep_call('takeover', heir, ARGV[5], first or 0, #found) end
return {string.format('%.17g', now), found}
