--TEST--
touch() and write() change the channel's file, without a daemon
--EXTENSIONS--
comet
--FILE--
<?php
$dir = __DIR__ . '/files.tmp';
mkdir($dir);
$comet = new Comet\Client("unix:?dir=$dir");
$comet->touch('news');
var_dump(file_get_contents("$dir/news.comet"));
$comet->write('news', "a\0b");
var_dump(file_get_contents("$dir/news.comet") === "a\0b", decoct(fileperms("$dir/news.comet")));
unlink("$dir/news.comet");
symlink('/etc/passwd', "$dir/news.comet");
try {
    $comet->touch('news');
} catch (Comet\FileException $e) {
    echo $e->getMessage(), "\n";
}
var_dump(array_values(array_diff(scandir($dir), ['.', '..'])));
?>
--CLEAN--
<?php
@unlink(__DIR__ . '/files.tmp/news.comet');
@rmdir(__DIR__ . '/files.tmp');
?>
--EXPECTF--
string(0) ""
bool(true)
string(6) "100644"
cannot touch %sfiles.tmp/news.comet: it is a symbolic link, not a regular file
array(1) {
  [0]=>
  string(10) "news.comet"
}
