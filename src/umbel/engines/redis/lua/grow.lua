-- group, by, key: let a group have more members; answers the index of the first of them.
return grow_group(ARGV[1], ARGV[2], ARGV[3])
