--TEST--
a client cannot be copied, stored or extended, and its arguments have types
--EXTENSIONS--
comet
--FILE--
<?php
$comet = new Comet\Client();
$tries = [
    fn () => clone $comet,
    fn () => serialize($comet),
    fn () => $comet->new = 1,
    fn () => $comet->publish(),
    fn () => $comet->publish([]),
];
foreach ($tries as $try) {
    try {
        $try();
        echo "no error\n";
    } catch (Throwable $e) {
        echo get_class($e), ': ', $e->getMessage(), "\n";
    }
}
var_dump((new ReflectionClass($comet))->isFinal());
?>
--EXPECT--
Error: Trying to clone an uncloneable object of class Comet\Client
Exception: Serialization of 'Comet\Client' is not allowed
Error: Cannot create dynamic property Comet\Client::$new
ArgumentCountError: Comet\Client::publish() expects at least 1 argument, 0 given
TypeError: Comet\Client::publish(): Argument #1 ($channel) must be of type string, array given
bool(true)
