<?php

/* Lets the clock fail inside the library, which Rust's standard library treats as impossible: panic.php DSN CLOCK */

declare(strict_types=1);

require __DIR__ . '/../../php-ext-example/autoload.php';

$clock = FFI::cdef('extern int works;', $argv[2]);
$comet = new Comet\Client($argv[1]);
$comet->publish('news', 'before');
try {
    $clock->works = 0;
    $comet->publish('news', 'never');
} catch (Comet\Exception $e) {
    $clock->works = -1;
    echo get_class($e), ' ', $e->getCode(), ': ', strtok($e->getMessage(), ':'), "\n";
}
$comet->publish('news', 'after');
