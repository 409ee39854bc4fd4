-- queue…: delete copies of Broadcast queues.
for _, queue in ipairs(ARGV) do remove_copy(queue) end
return #ARGV
