// What scripts do with mysql2: cometql.js HOST PORT KEY. Prints one line for each step.

const mysql = require('mysql2/promise');

const [host, port, key] = process.argv.slice(2);
const server = { host, port: Number(port), user: '15', database: 'CometQL_v1' };

async function main() {
    await mysql.createConnection({ ...server, password: 'wrong' }).catch((error) => console.log(error.errno));

    const comet = await mysql.createConnection({ ...server, password: key });
    const insert = 'INSERT INTO pipes_messages (name, event, message) VALUES (?, ?, ?)';
    await comet.query(insert, ['node', 'e', 'it\'s "ж🚀"\n']);
    const [stored] = await comet.query('INSERT INTO users_data (id, data) VALUES (?, ?)', [9, 'ж🚀']);
    console.log(stored.affectedRows, stored.insertId);
    const [rows] = await comet.query('SELECT * FROM users_data WHERE id IN (?)', [[9, 10]]);
    console.log(JSON.stringify(rows));
    await comet.ping();
    await comet.execute('SELECT * FROM pipes WHERE name = ?', ['node']).catch((error) => console.log(error.errno));
    await comet.query('SELECT * FROM nowhere').catch((error) => console.log(error.errno));
    // Several queries are sent before the first one is answered.
    const answers = await Promise.all(['a', 'b', 'c'].map((name) => comet.query('SELECT ?', [name])));
    console.log(JSON.stringify(answers.map(([[row]]) => Object.values(row)[0])));
    await comet.end();
}

main();
