// Apollo's gateway for Node, as its documentation starts it: node apollo.cjs SUPERGRAPH PORT
const { readFileSync } = require('node:fs');
const { ApolloServer } = require('@apollo/server');
const { startStandaloneServer } = require('@apollo/server/standalone');
const { ApolloGateway } = require('@apollo/gateway');

const [supergraph, port] = process.argv.slice(2);
const gateway = new ApolloGateway({ supergraphSdl: readFileSync(supergraph, 'utf8') });
const server = new ApolloServer({ gateway, introspection: false });
startStandaloneServer(server, { listen: { port: Number(port), host: '127.0.0.1' } }).then(({ url }) => console.log(url));
