<?php
// Long-polling without a server for it, as articles describe it: a script that sleeps, and looks at a file's time.
// It is better than most of these in two things, so that it may be compared: the clock of a file's time as PHP reads
// it has whole seconds, which lose a second message within one, so that the cursor also has the file's number, which
// a rename changes; and the data is that of the file whose time was read.

const WAIT = 25;
const SLEEP = 500000;

function cursor($stat)
{
    return $stat ? "$stat[mtime]-$stat[ino]" : '0';
}

/** What the publisher moves into place. */
function file_of($channel)
{
    return "$_SERVER[CHANNELS]/$channel.comet";
}

$file = file_of(basename($_GET['channel']));
// Who comes without a cursor gets what is published from then on.
$since = $_GET['since'] ?? cursor(@stat($file));

$end = microtime(true) + WAIT;
while (cursor(@stat($file)) === $since && microtime(true) < $end) {
    usleep(SLEEP);
    clearstatcache();
}

$open = @fopen($file, 'r');
$cursor = cursor($open ? fstat($open) : false);
$data = $cursor === $since || !$open ? null : stream_get_contents($open);
$body = json_encode(['cursor' => $cursor, 'data' => $data]);

header('Content-Type: application/json');
header('Cache-Control: no-store');
// Otherwise nginx sends it in chunks.
header('Content-Length: ' . strlen($body));
echo $body;
