<?php

/*
 * Publishes how busy the machine is. In a crontab:
 *
 *   * * * * *  www-data  php /usr/share/comet/php/examples/cron.php
 *
 * Cron jobs run while the daemon restarts, too: exit code 75 (EX_TEMPFAIL) says that the next run may do better.
 */

declare(strict_types=1);

require __DIR__ . '/../autoload.php';

try {
    // The key lets the library ask again when an acknowledgement is lost, without publishing twice.
    $comet = new Comet\Client('unix:?timeout_ms=2000&key=cron');
    [$now, $five, $fifteen] = sys_getloadavg();
    foreach (['load' => $now, 'load.5' => $five, 'load.15' => $fifteen] as $channel => $load) {
        $comet->publish($channel, json_encode(['load' => $load]), Comet\Client::BUFFER);
    }
    $comet->flush();
} catch (Comet\Exception $e) {
    fwrite(STDERR, "cannot publish: {$e->getMessage()}\n");
    exit(75);
}
