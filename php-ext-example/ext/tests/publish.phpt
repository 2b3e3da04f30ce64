--TEST--
publish() returns increasing ids, and null for a message that it does not wait for (COMET_SOCKET names a running daemon's socket)
--EXTENSIONS--
comet
--FILE--
<?php
use Comet\Client;

$comet = new Client('unix:?timeout_ms=30000');
$first = $comet->publish('phpt', 'hi');
$second = $comet->publish('phpt', "\xff\0");
var_dump($first > 1.7e15, $second > $first);
var_dump($comet->publish('phpt'));
var_dump($comet->publish('phpt', 'later', Client::NO_ACK));
var_dump($comet->publish('phpt', 'gathered', Client::BUFFER));
$comet->flush();
?>
--EXPECTF--
bool(true)
bool(true)
int(%d)
NULL
NULL
