<?php

/*
 * Publishes how busy the machine is. In a crontab:
 *
 *   * * * * *  www-data  php /usr/local/share/comet/php/examples/cron.php
 *
 * Cron jobs run while the daemon restarts, too: then the messages wait in the spool, and are published once whatever
 * became of the first attempt. Exit code 75 (EX_TEMPFAIL) says that not even this was possible.
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
