<?php

/*
 * Publishes the machine's load. The line in a crontab:
 *
 *   * * * * *  www-data  php /usr/local/share/comet/php/examples/cron.php
 *
 * Cron jobs also run while the daemon restarts. Then the messages wait in the spool. Each is published once, even if the
 * first attempt had succeeded without an answer. Exit code 75 (EX_TEMPFAIL) means that the spool failed as well.
 */

declare(strict_types=1);

require __DIR__ . '/../autoload.php';

try {
    $comet = new Comet\Client('unix:?timeout_ms=2000');
    [$now, $five, $fifteen] = sys_getloadavg();
    foreach (['load' => $now, 'load.5' => $five, 'load.15' => $fifteen] as $channel => $load) {
        $comet->publish($channel, json_encode(['load' => $load]), Comet\Client::BUFFER);
    }
    $comet->flush();
} catch (Comet\Exception $e) {
    fwrite(STDERR, "cannot publish: {$e->getMessage()}\n");
    exit(75);
}
