<?php

/* For applications without Composer. With the extension loaded only Comet\Token is loaded from here. */

declare(strict_types=1);

spl_autoload_register(static function (string $class): void {
    // A list, since a look at the file system can be forbidden (disable_functions).
    static $names = ['ClientInterface', 'Client', 'Token', 'Exception', 'ArgumentException', 'ConnectException',
        'TimeoutException', 'UnknownException', 'RefusedException', 'FileException'];
    foreach ($names as $name) {
        if ($class === "Comet\\$name") {
            require __DIR__ . "/src/$name.php";
        }
    }
});
