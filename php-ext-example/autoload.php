<?php

/* Loads the classes for applications without Composer. If the extension is loaded, only Comet\Token comes from here. */

declare(strict_types=1);

spl_autoload_register(static function (string $class): void {
    // A list of names, because disable_functions can forbid a look at the file system.
    static $names = ['ClientInterface', 'Client', 'Token', 'Exception', 'ArgumentException', 'ConnectException',
        'TimeoutException', 'UnknownException', 'RefusedException', 'FileException'];
    foreach ($names as $name) {
        if ($class === "Comet\\$name") {
            require __DIR__ . "/src/$name.php";
        }
    }
});
