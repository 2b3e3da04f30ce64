<?php

/* Publishes while each warning, notice and deprecation becomes an exception, as in many frameworks: careful.php DSN */

declare(strict_types=1);

set_error_handler(static function (int $level, string $message, string $file, int $line): never {
    throw new ErrorException($message, 0, $level, $file, $line);
});

require __DIR__ . '/../../php-ext-example/autoload.php';

$comet = new Comet\Client($argv[1]);
$comet->publish('careful', 'hi');
$comet->cursor();
$comet->history('careful');
echo "published\n";

Comet\Token::mint(str_repeat('s', 32) . "\n", 'key', ['user.42.*', 'news', '*'], ['news']);
echo "signed\n";

// These gathered messages cannot be sent. The destructor reports that by a warning.
$lost = new Comet\Client('unix:/nonexistent/comet.sock?spool=off');
$lost->publish('careful', 'lost', Comet\Client::BUFFER);
unset($lost);
echo "gone on\n";
