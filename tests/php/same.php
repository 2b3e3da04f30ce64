<?php

/* Uses all of Comet\Client and prints the results without ids: same.php DSN */

declare(strict_types=1);

require __DIR__ . '/../../php-ext-example/autoload.php';

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

$comet = new Client($argv[1]);
$first = $comet->publish('php', 'hi');
echo $comet->publish('php') > $first ? "rising\n" : "not rising\n";
$comet->publish('binary', "a\0\xff");
var_dump($comet->publish('php', 'later', Client::NO_ACK));
$both = $comet->publish('one,two', 'both');
$message = ['channel' => 'one', 'channels' => ['one', 'two'], 'id' => $both, 'name' => '', 'data' => 'both'];
var_dump($comet->history('one,two', $both - 1)['messages'] === [$message]);
$key = 'order-' . getmypid();
$first = $comet->publish('orders', 'first', name: 'paid', key: $key);
var_dump($comet->publish('orders', 'again', key: $key) === $first);
$cursor = $comet->cursor();
$binary = $comet->publish('binary', "a\0\xff");
$history = $comet->history(['php', 'binary'], $cursor);
var_dump($history['messages'] === [['channel' => 'binary', 'id' => $binary, 'name' => '', 'data' => "a\0\xff"]]);
var_dump($history['cursor'] === $binary, $history['gap'], $comet->history('nobody.publishes.here')['messages']);
var_dump($comet->history('orders')['messages'][0]['name'], $comet instanceof Comet\ClientInterface);
told(fn () => $comet->history('php,a/b'));
told(fn () => $comet->history([]));
told(fn () => $comet->history(array_map(fn ($i) => "c$i", range(1, 101))));
told(fn () => $comet->history('php', -1));
told(fn () => (new Client('unix:/nonexistent/comet.sock'))->cursor());
var_dump(array_keys($comet->history('orders')), array_keys($comet->history('orders')['messages'][0]));
$away = new Client('unix:' . __DIR__ . '/none.sock?spool=' . sys_get_temp_dir() . '/comet-same-' . getmypid());
var_dump($away->publish('php'), $away->spooled());
told(fn () => $away->publish('a/b'));
var_dump($away->spooled());
$comet->touch('file');
$comet->write('file', "a\0b");

told(fn () => new Client('tcp:localhost'));
told(fn () => new Client("unix:\0"));
told(fn () => $comet->publish('a/b', 'hi'));
told(fn () => $comet->publish('php', 'hi', name: "a\nb"));
told(fn () => $comet->publish('php', 'hi', key: str_repeat('k', 129)));
told(fn () => $comet->publish('php', 'hi', key: "\xff"));
told(fn () => $comet->publish('php', 'hi', 1 << 20));
told(fn () => $comet->publish('php', 'hi', 1 << 40));
told(fn () => $comet->publish('php', 'hi', PHP_INT_MIN));
told(fn () => $comet->publish('php', str_repeat('x', 2 << 20)));
told(fn () => $comet->touch('.hidden'));
told(fn () => (new Client('unix:/nonexistent/comet.sock'))->publish('php'));
told(fn () => (new Client('unix:?dir=/nonexistent'))->write('php', ''));
told(fn () => (new Client('unix:?dir=/nonexistent'))->touch('php'));

// Another object with the same connection. The flush of the first object sends the message that this one gathers.
var_dump((new Client($argv[1]))->publish('php', 'gathered', Client::BUFFER));
$comet->flush();
echo "flushed\n";
