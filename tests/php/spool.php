<?php

/*
 * Uses the spool while the daemon stops, is killed and comes back: spool.php DSN. Prints what the test has to do next.
 */

declare(strict_types=1);

require __DIR__ . '/../../php-ext-example/autoload.php';

use Comet\Client;

function step(string $name): void
{
    echo "$name\n";
    fgets(STDIN);
}

function sure(bool $so, string $what): void
{
    $so || throw new LogicException("not so: $what");
}

$comet = new Client($argv[1]);
sure($comet->publish('news', 'before') > 0 && !$comet->spooled(), 'published');

step('stop');
$start = hrtime(true);
sure($comet->publish('news', 'stopped') === null && $comet->spooled(), 'spooled when stopped');
sure(hrtime(true) - $start < 5000e6, 'within the timeout');
sure($comet->publish('news', 'stopped, too', name: 'label', key: 'own') === null, 'spooled behind it');
step('continue');
sure($comet->publish('news', 'continued') > 0 && !$comet->spooled(), 'in its turn');
sure($comet->publish('news', 'stopped, again', key: 'own') > 0, 'its key is known');

step('kill');
sure($comet->publish('news', 'nobody') === null && $comet->spooled(), 'spooled when killed');
sure($comet->publish('news', 'later', Client::NO_ACK) === null, 'not waited for');
sure($comet->publish('news', 'gathered', Client::BUFFER) === null && !$comet->spooled(), 'gathered');
$comet->flush();
sure($comet->spooled(), 'flushed into the spool');
$comet->flush();
sure(!$comet->spooled(), 'told once');
(new Client($argv[1]))->publish('news', 'of another object', Client::BUFFER);
gc_collect_cycles();
step('start');
sure($comet->publish('news', 'back') > 0 && !$comet->spooled(), 'published again');

foreach (['spool=/nonexistent/spool', 'spool=off'] as $spool) {
    try {
        (new Client("unix:/nonexistent/comet.sock?$spool"))->publish('news', 'lost');
        sure(false, 'thrown');
    } catch (Comet\ConnectException $e) {
        sure(str_contains($e->getMessage(), 'cannot be spooled') === ($spool !== 'spool=off'), $e->getMessage());
    }
}
