<?php

/* Publishes from a child process and its parent. The parent keeps its own buffer: fork.php DSN */

declare(strict_types=1);

require __DIR__ . '/../../php-ext-example/autoload.php';

$comet = new Comet\Client($argv[1]);
$comet->publish('news', 'parent');
$comet->publish('news', 'gathered', Comet\Client::BUFFER);
$child = pcntl_fork();
if ($child === 0) {
    $comet->publish('news', 'child');
    exit(0);
}
pcntl_waitpid($child, $status);
$status === 0 || throw new LogicException("child: $status");
$comet->publish('news', 'parent again');
