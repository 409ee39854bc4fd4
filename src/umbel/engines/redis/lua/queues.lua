-- Copies of Broadcast queues: zset `umbel.copies`, queue → until when it is kept (0: nobody has looked yet). What is to
-- be deleted with one stands in the set `umbel.copy.<queue>`: its lists, `\0<exchange>` for each that it hears, and
-- `\1<exchange>\0<binding>` as kombu keeps it.
local function remove_copy(queue)
  local parts = P .. 'umbel.copy.' .. queue
  for _, part in ipairs(redis.call('SMEMBERS', parts)) do
    if string.sub(part, 1, 1) == '\0' then
      redis.call('SREM', P .. 'umbel.fanout.' .. string.sub(part, 2), queue)
    elseif string.sub(part, 1, 1) == '\1' then
      local cut = string.find(part, '\0', 1, true)
      redis.call('SREM', P .. '_kombu.binding.' .. string.sub(part, 2, cut - 1), string.sub(part, cut + 1))
    else
      redis.call('DEL', P .. part)
      for _, owner in ipairs(redis.call('ZRANGE', P .. 'umbel.owners', 0, -1)) do
        local numbers = redis.call('HKEYS', held_key(owner, part))
        if #numbers > 0 then in_chunks('HDEL', P .. 'umbel.notes.' .. owner, numbers) end
        for _, number in ipairs(numbers) do redis.call('DEL', large_key(number)) end
        redis.call('DEL', held_key(owner, part), staged_key(owner, part))
        redis.call('SREM', P .. 'umbel.lists.' .. owner, part)
      end
      if redis.call('HDEL', P .. 'umbel.scheduled.count', part) == 1 then
        for _, member in ipairs(redis.call('ZRANGE', P .. 'umbel.scheduled', 0, -1)) do
          if string.sub(member, 1, #part + 1) == part .. '\0' then
            redis.call('ZREM', P .. 'umbel.scheduled', member)
          end
        end
      end
    end
  end
  redis.call('DEL', parts, P .. 'umbel.consumers.' .. queue)
  redis.call('ZREM', P .. 'umbel.copies', queue)
  redis.call('SREM', P .. 'umbel.queues', queue)
end

-- Give those that have no time yet one, and remove those whose time is over.
local function sweep_copies(now, seconds)
  for _, queue in ipairs(redis.call('ZRANGEBYSCORE', P .. 'umbel.copies', '-inf', string.format('%.17g', now))) do
    if tonumber(redis.call('ZSCORE', P .. 'umbel.copies', queue)) > 0 then
      remove_copy(queue)
    else
      redis.call('ZADD', P .. 'umbel.copies', now + seconds, queue)
    end
  end
end
