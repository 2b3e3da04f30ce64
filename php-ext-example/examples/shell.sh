#!/bin/sh
# Four ways to publish from the shell to the channel "news": shell.sh DIR SOCKET
set -eu
dir=${1:-/dev/shm}
socket=${2:-/run/comet/comet.sock}

# Something changed: no program, no daemon needed now.
touch "$dir/news.comet"

# With content. Beside it first, then into place: no reader ever sees half of it.
printf 'by file' > "$dir/.news.tmp"
mv "$dir/.news.tmp" "$dir/news.comet"

# Acknowledged, with the id of the message as the answer.
comet publish news 'by command' --socket "$socket"

# The same without Comet's command line.
printf '{"op":"publish","channel":"news","data":"by socket"}\n' | socat -t 5 - "UNIX:$socket"
