<?php

/* For those who use no Composer. With the extension loaded only Comet\Token is loaded from here. */

declare(strict_types=1);

spl_autoload_register(static function (string $class): void {
    $file = __DIR__ . '/src/' . substr($class, strlen('Comet\\')) . '.php';
    if (str_starts_with($class, 'Comet\\') && is_file($file)) {
        require $file;
    }
});
