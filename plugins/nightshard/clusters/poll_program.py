"""The part of a poll that runs on the login node: it asks Slurm and picks the files worth reading.

Slurm's listing decides: of an element that waits nothing is read (but see "relieved" below), of one
that runs its progress, of one that has ended or is listed nowhere all that it left. So the number
of processes does not grow with the number of shards, and a busy file system is not asked for
thousands of files that do not exist yet. Only POSIX tools are used, and ``timeout`` where it
exists.
"""

from nightshard.clusters.slurm import STATE_OF, ShardState

FILE_KINDS = ("progress", "exit_record", "manifest", "record")
"""Evidence of a shard, in the order in which a line of the table names its files."""

MAX_FILE_BYTES = 65536
"""Of a larger file only the beginning is brought, which is no document: each is about 1 KiB."""


def words(state: ShardState) -> str:
    """Return Slurm's words for a state, with a space around each."""
    return " ".join(["", *(word for word, known in STATE_OF.items() if known is state), ""])


# Its standard input is a table; what follows the second bar of S and D is a shell command:
#   N|nonce
#   W|states in which an element waits
#   L|states in which an element lives
#   S|cluster|squeue
#   D|cluster|sacct with @IDS@ for the array ids
#   R|folder of a run
#   J|cluster|array id|job name|first rank|shards of an element|look|ranks|name of each kind of
#     file, %05d is the rank
# Other shards may finish one whose job still waits; then its run's folder has a file "relieved".
# A job is known by its name as well, since its id may have been another's. Titles of sections and
# the lines that they hold are those that nightshard.clusters.poll reads.
PROGRAM = r"""
function expand(text, out,    parts, ends, count, i, each) {
    split("", out); gsub(/[][]/, "", text); sub(/%.*/, "", text)
    count = split(text, parts, ",")
    for (i = 1; i <= count; i++) {
        if (split(parts[i], ends, "-") < 2) ends[2] = ends[1]
        for (each = ends[1] + 0; each <= ends[2] + 0; each++) out[each] = 1
    }
}
function title(text) { printf "\n@%s %s\n", nonce, text }
function rest(line) { sub(/^[^|]*\|[^|]*\|/, "", line); return line }
function state(word) { sub(/[ +].*/, "", word); return word }
function lives(word) { return index(waiting living, " " word " ") }
function ask(program, command, at,    line, status, mark, field, some, each, element) {
    title(program " " label[at])
    mark = "@" nonce "="; status = "unknown"
    command = command " 2>&1 </dev/null; printf \"\\n" mark "%s\\n\" \"$?\""
    while ((command | getline line) > 0) {
        if (index(line, mark) == 1) { status = substr(line, length(mark) + 1); continue }
        print line
        count = split(line, field, "|")
        if (program == "squeue" && count == 10 && field[10] in named) {
            element = field[1]; sub(/^[0-9]+_?/, "", element); expand(element, some)
            for (each in some) seen[at, field[2], each, field[10]] = state(field[5])
        }
        if (program == "sacct" && count == 8 && field[8] in named && !lives(state(field[3]))) {
            split(field[1], some, "_"); over[at, some[1], some[2], field[8]] = 1
        }
    }
    close(command)
    title(program "-status " status)
    return status
}
function missing(at,    job, each, some, ids, list, one, element) {
    for (job = 1; job <= jobs; job++) {
        if (cluster[job] != at) continue
        expand(ranks[job], some)
        for (each in some) {
            # A queue that is silent has forgotten nothing.
            element = place(job, each)
            if (silent[at] ? look[job] == "m" : !((at, id[job], element, name[job]) in seen)) {
                ids[id[job]] = 1; break
            }
        }
    }
    for (one in ids) list = list (list == "" ? "" : ",") one
    return list
}
function place(job, rank) { return int((rank - first[job]) / per[job]) }
function path(job, kind, rank) { return run[job] "/" sprintf(file[job, kind], rank) }
function look_again(where) {
    sub(/\/[^\/]*$/, "", where); gsub(/[^A-Za-z0-9_\/.-]/, "\\\\&", where)
    if (!(where in listed)) { listed[where] = 1; print where | lister }
}
function bring(job, kind, each,    where, line, size) {
    where = path(job, kind, each)
    while (size <= most && (getline line < where) > 0) {
        size += length(line) + 1
        print each " " kind ":" substr(line, 1, most)
    }
    close(where)
}
function relieved(job,    line) {
    if (!(run[job] in relief)) relief[run[job]] = (getline line < (run[job] "/relieved")) >= 0
    close(run[job] "/relieved")
    return relief[run[job]]
}
function choose(job, each,    key, word) {
    key = cluster[job] SUBSEP id[job] SUBSEP place(job, each) SUBSEP name[job]
    if (silent[cluster[job]]) return (key in over) ? "ended" : "nothing"
    word = (key in seen) ? seen[key] : ""
    if (word == "" || !lives(word)) return "ended"
    if (look[job] == "f") return "all"
    if (index(waiting, " " word " ")) return relieved(job) ? "manifest" : "nothing"
    return look[job] == "q" ? "nothing" : "progress"
}
BEGIN { FS = "|"; lister = "xargs ls -f >/dev/null 2>&1" }
/^N/ { nonce = $2 }
/^W/ { waiting = $2 }
/^L/ { living = $2 }
/^C/ { label[$2] = $3; clusters = $2 + 1 }
/^S/ { squeue[$2] = rest($0) }
/^D/ { sacct[$2] = rest($0) }
/^R/ { folder = substr($0, 3) }
/^J/ {
    run[++jobs] = folder; cluster[jobs] = $2; id[jobs] = $3; name[jobs] = $4; named[$4] = 1
    first[jobs] = $5; per[jobs] = $6; look[jobs] = $7; ranks[jobs] = $8
    for (kind = 1; kind <= 4; kind++) file[jobs, kind] = $(8 + kind)
}
END {
    for (at = 0; at < clusters; at++) silent[at] = ask("squeue", squeue[at], at) != "0"
    for (at = 0; at < clusters; at++) {
        if (at in sacct && (ids = missing(at)) != "") {
            gsub(/@IDS@/, ids, sacct[at]); ask("sacct", sacct[at], at)
        }
    }
    title("files")
    for (job = 1; job <= jobs; job++) {
        expand(ranks[job], some)
        for (each in some) {
            chosen[job, each] = choose(job, each)
            # Listing a folder makes a network file system look again for what it had not found.
            if (chosen[job, each] == "ended")
                for (kind = 2; kind <= 3; kind++) look_again(path(job, kind, each))
        }
    }
    close(lister)
    for (job = 1; job <= jobs; job++) {
        print "=" name[job]
        expand(ranks[job], some)
        for (each in some) {
            if (chosen[job, each] == "nothing") continue
            begin = chosen[job, each] == "manifest" ? 3 : 1
            last = chosen[job, each] == "progress" ? 1 : (begin == 3 ? 3 : 4)
            for (kind = begin; kind <= last; kind++) bring(job, kind, each)
        }
    }
}
"""
