-- Results: `celery-task-meta-<id>` as Celery keeps them, told to who waits on the channel of the same name. KEYS[2] is
-- the prefix of results where it differs from that of messages.
local R = KEYS[2] or P
local FINAL = {SUCCESS = true, FAILURE = true, REVOKED = true}

-- Which state is stored. What is not JSON cannot be read here: a mark beside it says that it is final.
local function is_final(id, key)
  local start = redis.call('GETRANGE', key, 0, 63)
  if start == '' then return false end
  if string.sub(start, 1, 1) ~= '{' then
    return redis.call('EXISTS', R .. 'umbel.final.' .. id) == 1
  end
  local status = string.match(start, '^{%s*"status":%s*"([^"\\]*)"')
  if not status then
    local read, meta = pcall(cjson.decode, redis.call('GET', key))
    status = read and type(meta) == 'table' and meta.status
  end
  return FINAL[status] or false
end

-- Store a state for so many whole seconds ('0': for ever), `final` being '1' or '0', and tell who waits; false when a
-- terminal state stays. Nearly always nothing is stored yet, and there is nothing to look at.
local function put_record(id, seconds, meta, final)
  local key = R .. 'celery-task-meta-' .. id
  if seconds == '0' then
    if not redis.call('SET', key, meta, 'NX') then
      if is_final(id, key) then return false end
      redis.call('SET', key, meta)
    end
  elseif not redis.call('SET', key, meta, 'EX', seconds, 'NX') then
    if is_final(id, key) then return false end
    redis.call('SET', key, meta, 'EX', seconds)
  end
  if string.byte(meta) ~= 123 then
    local mark = R .. 'umbel.final.' .. id
    if final ~= '1' then
      redis.call('DEL', mark)
    elseif seconds == '0' then
      redis.call('SET', mark, '1')
    else
      redis.call('SET', mark, '1', 'EX', seconds)
    end
  end
  redis.call('PUBLISH', key, meta)
  return true
end
