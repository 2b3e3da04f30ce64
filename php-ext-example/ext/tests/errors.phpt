--TEST--
each failure throws an exception of its own class, with libcomet's text and number
--EXTENSIONS--
comet
--FILE--
<?php
use Comet\Client;

function told(callable $call): void
{
    try {
        $call();
        echo "no exception\n";
    } catch (Comet\Exception $e) {
        echo get_class($e), ' ', $e->getCode(), ': ', $e->getMessage(), "\n";
    }
}

$nobody = new Client('unix:/nonexistent/comet.sock?dir=/nonexistent');
told(fn () => new Client('tcp:localhost'));
told(fn () => new Client("unix:/a\0b"));
told(fn () => $nobody->publish('a/b'));
told(fn () => $nobody->publish('news', '', 8));
told(fn () => $nobody->publish('news', '', -1));
told(fn () => $nobody->publish('news', '', 1 << 32));
told(fn () => $nobody->publish('news', 'hi'));
told(fn () => $nobody->touch('news'));
told(fn () => $nobody->write('.news', 'hi'));
$nobody->publish('news', 'lost', Client::BUFFER);
unset($nobody);
?>
--EXPECTF--
Comet\ArgumentException -2: DSN must start with "unix:", as in unix:/run/comet/comet.sock?timeout_ms=200
Comet\ArgumentException -2: DSN may not contain a NUL byte
Comet\ArgumentException -3: channel name may not contain '/' (allowed: A-Z a-z 0-9 _ . : = + @ ~ -)
Comet\ArgumentException -4: unknown flags 0xc (known: 1 no ack, 2 buffer, 4 spool)
Comet\ArgumentException -4: unknown flags 0xffffffff (known: 1 no ack, 2 buffer, 4 spool)
Comet\ArgumentException -4: unknown flags 0xffffffff (known: 1 no ack, 2 buffer, 4 spool)
Comet\ConnectException -6: cannot connect to /nonexistent/comet.sock: No such file or directory (does the daemon run?), and the message cannot be spooled: cannot open directory /nonexistent/comet.spool: No such file or directory (the daemon creates it at its start)
Comet\FileException -11: cannot open directory /nonexistent: No such file or directory
Comet\ArgumentException -3: channel name may not start with a dot

Warning: Comet: buffered messages are lost: cannot connect to /nonexistent/comet.sock: No such file or directory (does the daemon run?), and the message cannot be spooled: cannot open directory /nonexistent/comet.spool: No such file or directory (the daemon creates it at its start) in %s on line %d
