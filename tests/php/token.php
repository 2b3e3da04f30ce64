<?php

/* Signs tokens as a site does: token.php SECRET. Prints tokens and refusals, one a line. */

declare(strict_types=1);

require __DIR__ . '/../../php-ext-example/autoload.php';

use Comet\Token;

$secret = $argv[1];
echo Token::mint($secret, 'hs', ['chat.7', 'user.42.*'], ['chat.7'], history: true, subject: '42'), "\n";
echo Token::mint($secret, 'hs', ['chat.7'], seconds: 1), "\n";
echo Token::mint($secret, 'hs', ['*'], audience: 'other'), "\n";
echo Token::mint($secret . '!', 'hs', ['*']), "\n";
echo Token::mint($secret, 'hs', \array_map(fn ($n) => "c.$n", \range(1, 63)), ['*']), "\n";

$refused = [
    fn () => Token::mint('short', 'hs'),
    fn () => Token::mint($secret, 'hs', ['*'], seconds: 0),
    fn () => Token::mint($secret, 'hs', \array_fill(0, 65, 'a')),
    fn () => Token::mint($secret, 'hs', \array_fill(0, 64, \str_repeat('a', 200))),
    fn () => Token::mint($secret, "\xff"),
];
foreach (['user.4*', 'user.*.mail', '', 'a/b', '.a', '.*', "a\n", \str_repeat('a', 201), 7] as $pattern) {
    $refused[] = fn () => Token::mint($secret, 'hs', [$pattern]);
}
foreach ($refused as $mint) {
    try {
        $token = $mint();
        echo "taken: $token\n";
    } catch (Comet\ArgumentException $e) {
        echo \strtr($e->getMessage(), "\n", ' '), "\n";
    }
}
