<?php

/*
 * A page that shows each sent text to all its readers at once. PHP only answers requests. The browsers wait at the
 * daemon, behind the same nginx (../../nginx.conf).
 */

declare(strict_types=1);

require __DIR__ . '/../../autoload.php';

$error = null;
if ($_SERVER['REQUEST_METHOD'] === 'POST') {
    try {
        $text = is_string($_POST['text'] ?? null) ? $_POST['text'] : '';
        // A page waits at most this time for Comet.
        $id = (new Comet\Client('unix:?timeout_ms=2000'))->publish('news', $text);
        // While the daemon restarts, the message waits in the spool.
        header('X-Message-Id: ' . ($id ?? 'spooled'));
        header('Location: ' . strtok($_SERVER['REQUEST_URI'], '?'), true, 303);
        exit;
    } catch (Comet\Exception $e) {
        http_response_code(503);
        $error = $e->getMessage();
    }
}

// Messages that readers have missed, and the cursor for their browsers. While the daemon is down, the page shows none.
try {
    $history = (new Comet\Client('unix:?timeout_ms=2000'))->history('news');
} catch (Comet\Exception) {
    $history = ['messages' => [], 'cursor' => null];
}
?>
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>News</title>
<style>
  body { font: 1.1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 2rem auto; padding: 0 1rem; }
  form { display: flex; gap: .5rem; }
  input { flex: 1; min-width: 0; font: inherit; padding: .4rem; }
  button { font: inherit; padding: .4rem 1rem; }
  li { overflow-wrap: anywhere; }
  [role=alert] { color: #b00020; }
</style>
<h1>News</h1>
<?php if ($error !== null): ?>
<p role="alert">Not published: <?= htmlspecialchars($error) ?></p>
<?php endif ?>
<form method="post">
  <input name="text" aria-label="Your news" required autofocus>
  <button>Send</button>
</form>
<ul id="news">
<?php foreach (array_reverse($history['messages']) as $message): ?>
  <li><?= htmlspecialchars($message['data']) ?></li>
<?php endforeach ?>
</ul>
<script src="/comet.js"></script>
<script>
  Comet.subscribe('news', {
    message(message) {
      const item = document.createElement('li');
      item.textContent = message.data;
      document.getElementById('news').prepend(item);
    },
    gap() { location.reload(); }, // messages were missed: the reloaded page has all kept messages
  }, { since: <?= json_encode($history['cursor']) ?> });
</script>
</html>
