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

-- Seconds as SET takes them, made once for each text: false where there is no end.
local whole = setmetatable({}, {__index = function(known, text)
  local seconds = tonumber(text)
  known[text] = seconds > 0 and string.format('%.0f', math.ceil(seconds))
  return known[text]
end})

local function set(key, value, seconds)
  if seconds then
    redis.call('SET', key, value, 'EX', seconds)
  else
    redis.call('SET', key, value)
  end
end

-- Store a state for so many seconds ('0': for ever), `final` being '1' or '0', whatever is stored, and tell who waits.
local function write_record(id, seconds, meta, final)
  local key = R .. 'celery-task-meta-' .. id
  seconds = whole[seconds]
  set(key, meta, seconds)
  if string.sub(meta, 1, 1) ~= '{' then
    local mark = R .. 'umbel.final.' .. id
    if final == '1' then set(mark, '1', seconds) else redis.call('DEL', mark) end
  end
  redis.call('PUBLISH', key, meta)
end

-- The same; false when a terminal state stays.
local function put_record(id, seconds, meta, final)
  if is_final(id, R .. 'celery-task-meta-' .. id) then return false end
  write_record(id, seconds, meta, final)
  return true
end
