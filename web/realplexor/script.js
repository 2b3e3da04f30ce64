// Realplexor for pages: Comet's own script with the interface of dklab_realplexor.js.
//
//     var realplexor = new Dklab_Realplexor("http://example.com/realplexor/", "namespace_");
//     realplexor.subscribe("id", function (data, id, cursor) { … }).execute();
//
// The address must be one of the page's own host and port, or of a subdomain of the page's host. For a subdomain, both
// documents need the header "Origin-Agent-Cluster: ?0".
(function () {
    "use strict";

    function Realplexor(address, namespace) {
        var link = document.createElement("a");
        link.href = address;
        this.address = link.href;
        this.isOurs = link.host === location.host && link.protocol === location.protocol;
        this.namespace = namespace || "";
        this.login = "";
        this.map = {};
        this.loader = null; // the object in the iframe, when the iframe is loaded
        this.isLoading = false;
    }

    function call(callback, values) {
        try {
            callback.apply(null, values);
            return null;
        } catch (error) {
            return String(error);
        }
    }

    Realplexor.prototype = {
        constructor: Realplexor,

        // Ids belong to this login.
        logon: function (login) {
            this.login = login + "_";
            return this;
        },

        entry: function (id) {
            if (!Object.prototype.hasOwnProperty.call(this.map, id)) {
                this.map[id] = { cursor: null, callbacks: [] };
            }
            return this.map[id];
        },

        // The next execute() asks for blocks after this cursor.
        setCursor: function (id, cursor) {
            this.entry(id).cursor = cursor;
            return this;
        },

        // The next execute() listens to this id.
        subscribe: function (id, callback) {
            var callbacks = this.entry(id).callbacks;
            if (callbacks.indexOf(callback) < 0) {
                callbacks.push(callback);
            }
            return this;
        },

        // Without a callback: all callbacks of the id.
        unsubscribe: function (id, callback) {
            var entry = this.entry(id);
            entry.callbacks = entry.callbacks.filter(function (known) {
                return callback && known !== callback;
            });
            return this;
        },

        // Listens to all ids that have callbacks.
        execute: function () {
            if (this.loader) {
                this.loader.execute(this.map, call, this.login + this.namespace);
            } else if (!this.isLoading) {
                this.load();
            }
        },

        load: function () {
            var self = this;
            var frame = document.createElement("iframe");
            var query = "?identifier=IFRAME";
            if (!this.isOurs) {
                document.domain = location.hostname;
                query += "&HOST=" + location.hostname;
            }
            this.isLoading = true;
            frame.style.display = "none";
            frame.onload = function () {
                // Throws if the page may not use a document of that address.
                self.loader = frame.contentWindow.Dklab_Realplexor_Loader;
                if (!self.loader) {
                    throw new Error("Dklab_Realplexor: there is no loader page at " + self.address);
                }
                self.execute();
            };
            frame.src = this.address + query;
            document.body.appendChild(frame);
        }
    };

    window.Dklab_Realplexor = Realplexor;
})();
