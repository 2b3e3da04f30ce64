<?php

/* Asks for the history of a server whose answers differ from the daemon's: malformed.php DSN */

declare(strict_types=1);

require __DIR__ . '/../../php-ext-example/autoload.php';

try {
    (new Comet\Client($argv[1]))->history('news');
} catch (Comet\Exception $e) {
    echo get_class($e), ' ', $e->getCode(), ': ', $e->getMessage(), "\n";
}
