/** The first page: shows the messages of the channel `hello`. */
'use strict';

Comet.subscribe('hello', { ...Demo.list(document.getElementById('messages')), state: Demo.state }, { since: 0 });
