/** The first page: what came on `hello`, live. */
'use strict';

Comet.subscribe('hello', { ...Demo.list(document.getElementById('messages')), state: Demo.state }, { since: 0 });
