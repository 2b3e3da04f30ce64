<?php

/* Publishes while the daemon stops, is killed and comes back: faults.php DSN. Prints what the test has to do next. */

declare(strict_types=1);

require __DIR__ . '/../../php-ext-example/autoload.php';

function step(string $name): void
{
    echo "$name\n";
    fgets(STDIN);
}

function thrown(string $class, callable $call): string
{
    try {
        $call();
    } catch (Comet\Exception $e) {
        $e instanceof $class || throw $e;
        return $e->getMessage();
    }
    throw new LogicException("no $class");
}

$comet = new Comet\Client($argv[1] . '&spool=off');
$comet->publish('news', 'before');

step('stop');
$start = hrtime(true);
$text = thrown(Comet\TimeoutException::class, fn () => $comet->publish('news', 'stopped'));
hrtime(true) - $start >= 999e6 || throw new LogicException('too early');
$text === 'no answer within 1000 ms; the message may have been published' || throw new LogicException($text);
foreach ([fn () => $comet->cursor(), fn () => $comet->history('news')] as $read) {
    $text = thrown(Comet\TimeoutException::class, $read);
    $text === 'no answer within 1000 ms; nothing was published' || throw new LogicException($text);
}
step('continue');

step('kill');
thrown(Comet\ConnectException::class, fn () => $comet->publish('news', 'nobody'));
step('start');
$comet->publish('news', 'back');
