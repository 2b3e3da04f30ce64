<?php

/* Prints the public methods of the classes: of the named file, otherwise of the classes that PHP has or loads. */

declare(strict_types=1);

require $argv[1] ?? __DIR__ . '/../../php-ext-example/autoload.php';

$names = ['ClientInterface', 'Client', 'Exception', 'ArgumentException', 'ConnectException', 'TimeoutException', 'UnknownException',
    'RefusedException', 'FileException'];
foreach ($names as $name) {
    $class = new ReflectionClass("Comet\\$name");
    echo $class->isFinal() ? 'final ' : '', $class->getName(), ' ', $class->getParentClass() ? $class->getParentClass()->getName() : '', "\n";
    foreach ($name === 'Client' ? $class->getReflectionConstants(ReflectionClassConstant::IS_PUBLIC) : [] as $constant) {
        echo '  ', $constant->getName(), ' = ', $constant->getValue(), "\n";
    }
    foreach ($name === 'Client' ? $class->getMethods(ReflectionMethod::IS_PUBLIC) : [] as $method) {
        if ($method->getName() === '__destruct') {
            continue; // the extension has one too, below PHP
        }
        $parameters = array_map(
            static fn (ReflectionParameter $p) => $p->getType() . ' $' . $p->getName()
                . ($p->isDefaultValueAvailable() ? ' = ' . var_export($p->getDefaultValue(), true) : ''),
            $method->getParameters(),
        );
        $type = $method->hasReturnType() ? ': ' . $method->getReturnType() : '';
        echo '  public ', $method->getName(), '(', implode(', ', $parameters), ")$type\n";
    }
}
