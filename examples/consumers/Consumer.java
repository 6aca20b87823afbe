import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.MessageDigest;
import java.security.Signature;
import java.security.spec.X509EncodedKeySpec;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import javax.crypto.AEADBadTagException;
import javax.crypto.Cipher;
import javax.crypto.spec.GCMParameterSpec;
import javax.crypto.spec.SecretKeySpec;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * A consumer of Tandem's customer events: verifies them, opens them, and takes each change once. The same as consumer.py, in Java 17.
 *
 * <pre>java -cp 'KAFKA/libs/*' Consumer.java --bootstrap 127.0.0.1:9092 --sealing-key-file .tandem/sealing.key</pre>
 *
 * <p>Also: {@code --trusted-signer KEY} (accounts' verifying key in base64, if it is known), {@code --topic-prefix PREFIX}, {@code --config FILE} with Kafka's
 * own properties ({@code security.protocol}, {@code sasl.jaas.config}, …), {@code --to-end} to stop where the topics ended at the start.
 *
 * <p>It needs kafka-clients and jackson-databind, which Kafka's own folder has. It keeps everything in memory and reads from the beginning; a service would
 * keep customers in its database, write each change with "revision < ?" as the condition, and commit offsets behind the write.
 */
public final class Consumer {
    private static final String CHANGES = "accounts.customer.change";
    private static final String KEYS = "accounts.customer.key";
    private static final String CLAIM = "!claim/accounts";
    private static final Set<String> UNSIGNED = Set.of("ce_tandemsignature", "ce_traceparent", "ce_tracestate");
    private static final List<String> OPTIONS =
            List.of("--bootstrap", "--sealing-key-file", "--trusted-signer", "--topic-prefix", "--config", "--to-end");
    private static final ObjectMapper JSON = new ObjectMapper();
    /** What stands before an Ed25519 public key in X.509 (RFC 8410, section 4). */
    private static final byte[] ED25519 = {0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00};

    /** A record that is not taken, and why. */
    private static final class Refused extends Exception {
        Refused(String why) {
            super(why);
        }
    }

    private final List<byte[]> sealingKeys;
    private final String prefix;
    private List<byte[]> signers;
    private JsonNode signedFrom = JSON.createObjectNode();
    private JsonNode replaced = JSON.createArrayNode();
    private long claimNumber;
    /** Of each customer the wrapped key; empty for one who was erased. */
    private final Map<String, String> dataKeys = new HashMap<>();
    private final Map<String, ObjectNode> customers = new HashMap<>();
    private final Map<String, List<ObjectNode>> waiting = new HashMap<>();

    private Consumer(List<byte[]> sealingKeys, List<byte[]> signers, String prefix) {
        this.sealingKeys = sealingKeys;
        this.signers = signers;
        this.prefix = prefix;
    }

    public static void main(String[] arguments) throws Exception {
        var given = new HashMap<String, String>();
        for (int at = 0; at < arguments.length; at++) {
            boolean isFlag = arguments[at].equals("--to-end");
            if (!OPTIONS.contains(arguments[at]) || !isFlag && at + 1 == arguments.length) {
                System.err.println("give options of " + OPTIONS + ", each but --to-end with its value");
                System.exit(2);
            }
            given.put(arguments[at], isFlag ? "" : arguments[++at]);
        }
        var settings = new Properties();
        if (given.containsKey("--config")) {
            // A file, so that a password stands on no command line.
            try (var file = Files.newBufferedReader(Path.of(given.get("--config")))) {
                settings.load(file);
            }
        }
        settings.put("bootstrap.servers", given.getOrDefault("--bootstrap", "127.0.0.1:9092"));
        settings.put("isolation.level", "read_committed");
        settings.put("enable.auto.commit", "false");
        String prefix = given.getOrDefault("--topic-prefix", "");
        var bytes = new ByteArrayDeserializer();
        try (var kafka = new KafkaConsumer<byte[], byte[]>(settings, bytes, bytes)) {
            var sealingKeys = keys(Files.readString(Path.of(given.getOrDefault("--sealing-key-file", ".tandem/sealing.key"))));
            var reader = new Consumer(sealingKeys, keys(given.getOrDefault("--trusted-signer", "")), prefix);
            // Keys first: so most events open at once.
            reader.read(kafka, List.of(prefix + KEYS), true);
            reader.read(kafka, List.of(prefix + CHANGES), true);
            if (!given.containsKey("--to-end")) {
                reader.read(kafka, List.of(prefix + KEYS, prefix + CHANGES), false);
            }
        }
    }

    /** Keys in base64, with blanks or commas between. */
    private static List<byte[]> keys(String text) {
        return Arrays.stream(text.split("[\\s,]+")).filter(key -> !key.isEmpty()).map(Base64.getDecoder()::decode).toList();
    }

    /** Reads topics from the beginning: to where they end now, or for ever. What is read again changes nothing. */
    private void read(KafkaConsumer<byte[], byte[]> kafka, List<String> topics, boolean toEnd) {
        Collection<TopicPartition> partitions = topics.stream()
                .flatMap(topic -> kafka.partitionsFor(topic).stream())
                .map(found -> new TopicPartition(found.topic(), found.partition()))
                .toList();
        kafka.assign(partitions);
        kafka.seekToBeginning(partitions);
        var ends = kafka.endOffsets(partitions);
        while (!toEnd || ends.entrySet().stream().anyMatch(end -> kafka.position(end.getKey()) < end.getValue())) {
            for (var record : kafka.poll(Duration.ofSeconds(1))) {
                // One bad record costs itself: it is told of, and the next one is read.
                try {
                    if (record.topic().equals(prefix + KEYS)) {
                        takeKey(record);
                    } else {
                        takeChange(record);
                    }
                } catch (Refused | GeneralSecurityException | java.io.IOException | RuntimeException error) {
                    System.err.printf("consumer: %s[%d]@%d is not taken: %s%n", record.topic(), record.partition(), record.offset(),
                            error.getMessage());
                }
            }
        }
    }

    // --- signatures (docs/decisions/0017-signed-events.md) ------------------------------------------------------------

    private static byte[] sha256(byte[]... parts) throws GeneralSecurityException {
        var digest = MessageDigest.getInstance("SHA-256");
        for (byte[] part : parts) {
            digest.update(part);
        }
        return digest.digest();
    }

    private static byte[] number(long number) {
        return ByteBuffer.allocate(8).putLong(number).array();
    }

    /** The hash of what is signed of a record; the topic's name is without prefix. */
    private byte[] leaf(ConsumerRecord<byte[], byte[]> record) throws GeneralSecurityException {
        var attributes = new ArrayList<Header>();
        for (Header header : record.headers()) {
            String name = header.key().toLowerCase(Locale.ROOT);
            if ((name.startsWith("ce_") || name.equals("content-type")) && !UNSIGNED.contains(name)) {
                attributes.add(header);
            }
        }
        attributes.sort((one, other) -> one.key().toLowerCase(Locale.ROOT).compareTo(other.key().toLowerCase(Locale.ROOT)));
        var parts = new ArrayList<byte[]>();
        parts.add(record.topic().substring(prefix.length()).getBytes(StandardCharsets.UTF_8));
        parts.add(record.key());
        parts.add(number(attributes.size()));
        for (Header header : attributes) {
            parts.add(header.key().toLowerCase(Locale.ROOT).getBytes(StandardCharsets.UTF_8));
            parts.add(header.value());
        }
        parts.add(record.value());
        var digest = MessageDigest.getInstance("SHA-256");
        digest.update((byte) 0);
        for (byte[] part : parts) {
            // 2^64-1 says that there is none.
            digest.update(number(part == null ? -1 : part.length));
            digest.update(part == null ? new byte[0] : part);
        }
        return digest.digest();
    }

    private void verify(ConsumerRecord<byte[], byte[]> record, List<byte[]> signers) throws Refused, GeneralSecurityException {
        var given = new ArrayList<String>();
        for (Header header : record.headers()) {
            if (header.key().equalsIgnoreCase("ce_tandemsignature")) {
                given.add(new String(header.value(), StandardCharsets.US_ASCII));
            }
        }
        if (given.size() != 1 || !given.get(0).startsWith("v1.")) {
            throw new Refused("it has no signature, or more than one");
        }
        byte[] signature = Base64.getUrlDecoder().decode(given.get(0).substring(3));
        if (signature.length < 72 || (signature.length - 72) % 33 != 0 || signature.length > 72 + 8 * 33) {
            throw new Refused("its signature is none");
        }
        byte[] root = leaf(record);
        for (int at = 72; at < signature.length; at += 33) {
            byte[] other = Arrays.copyOfRange(signature, at + 1, at + 33);
            byte[] node = {1};
            root = signature[at] == 1 ? sha256(node, root, other) : sha256(node, other, root);
        }
        for (byte[] key : signers) {
            if (!Arrays.equals(Arrays.copyOf(sha256(key), 8), Arrays.copyOf(signature, 8))) {
                continue;
            }
            // A key that was replaced counts for what lies before that.
            for (JsonNode one : replaced) {
                if (Arrays.equals(Base64.getDecoder().decode(one.path("key").asText()), key) && record.offset() >= offset(one.path("before"), record)) {
                    throw new Refused("it is signed by a key that had been replaced");
                }
            }
            byte[] encoded = ByteBuffer.allocate(44).put(ED25519).put(key).array();
            var verifier = Signature.getInstance("Ed25519");
            verifier.initVerify(KeyFactory.getInstance("Ed25519").generatePublic(new X509EncodedKeySpec(encoded)));
            verifier.update("tandem signature v1\0".getBytes(StandardCharsets.US_ASCII));
            verifier.update(root);
            if (verifier.verify(Arrays.copyOfRange(signature, 8, 72))) {
                return;
            }
            throw new Refused("it was changed since it was signed");
        }
        throw new Refused("it is signed by nobody who may write here");
    }

    /** Refuses what accounts has not signed, but for what is from before there were signatures. */
    private void verify(ConsumerRecord<byte[], byte[]> record) throws Refused, GeneralSecurityException {
        if (record.offset() >= offset(signedFrom, record)) {
            verify(record, signers);
        }
    }

    /** What is said of a record's partition, 0 where nothing is. */
    private long offset(JsonNode ofTopics, ConsumerRecord<byte[], byte[]> record) {
        return ofTopics.path(record.topic().substring(prefix.length())).path(Integer.toString(record.partition())).asLong(0);
    }

    // --- sealing (docs/decisions/0009-erasure.md) ---------------------------------------------------------------------

    /** AES-256-GCM: nonce (12 bytes), ciphertext and tag. */
    private static byte[] open(String sealed, List<byte[]> keys, String place) throws Refused, GeneralSecurityException {
        byte[] bytes = Base64.getUrlDecoder().decode(sealed.substring(sealed.lastIndexOf('.') + 1));
        for (byte[] key : keys) {
            var cipher = Cipher.getInstance("AES/GCM/NoPadding");
            cipher.init(Cipher.DECRYPT_MODE, new SecretKeySpec(key, "AES"), new GCMParameterSpec(128, bytes, 0, 12));
            cipher.updateAAD(place.getBytes(StandardCharsets.UTF_8));
            try {
                return cipher.doFinal(bytes, 12, bytes.length - 12);
            } catch (AEADBadTagException another) {
                continue;
            }
        }
        throw new Refused("no key opens it");
    }

    // --- what is known ------------------------------------------------------------------------------------------------

    private void takeKey(ConsumerRecord<byte[], byte[]> record) throws Refused, GeneralSecurityException, java.io.IOException {
        String key = new String(record.key(), StandardCharsets.UTF_8);
        if (key.equals(CLAIM)) {
            takeClaim(record);
            return;
        }
        verify(record);
        if (record.value() == null) {
            // The proof that this customer was erased. A key that comes after it counts for nothing.
            dataKeys.put(key, "");
            forget(key, 0);
        } else if (!"".equals(dataKeys.get(key))) {
            dataKeys.put(key, JSON.readTree(record.value()).path("wrapped").asText());
            var kept = waiting.remove(key);
            for (ObjectNode change : kept == null ? List.<ObjectNode>of() : kept) {
                // Each for itself: one that is still not to be opened waits again, and none behind it is lost.
                try {
                    take(change);
                } catch (java.io.IOException | RuntimeException error) {
                    System.err.printf("consumer: %s, revision %s, which waited, is not taken: %s%n", key, change.path("revision"), error.getMessage());
                }
            }
        }
    }

    /** Says what accounts signs with. The first one is believed, unless its key was given; later ones must be signed by a known key. */
    private void takeClaim(ConsumerRecord<byte[], byte[]> record) throws Refused, GeneralSecurityException, java.io.IOException {
        if (record.value() == null) {
            return;
        }
        JsonNode claim = JSON.readTree(record.value());
        var keys = new ArrayList<byte[]>();
        claim.path("verifying_keys").forEach(key -> keys.add(Base64.getDecoder().decode(key.asText())));
        verify(record, signers.isEmpty() ? keys : signers);
        if (claim.path("number").asLong(0) < claimNumber) {
            throw new Refused("it is an old claim that somebody has written again");
        }
        signers = keys;
        claimNumber = claim.path("number").asLong(0);
        replaced = claim.path("replaced_keys");
        signedFrom = claim.path("signed_from");
    }

    private void takeChange(ConsumerRecord<byte[], byte[]> record) throws Refused, GeneralSecurityException, java.io.IOException {
        verify(record);
        if (record.value() == null || !(JSON.readTree(record.value()) instanceof ObjectNode change)) {
            throw new Refused("it is no event");
        }
        take(change);
    }

    /** Takes a change once: the log may repeat events, and the revision tells which is newer. */
    private void take(ObjectNode change) throws java.io.IOException {
        String id = change.required("id").asText();
        long revision = change.required("revision").asLong();
        ObjectNode known = customers.get(id);
        if (known != null && known.path("revision").asLong() >= revision) {
            return;
        }
        String type = change.required("changeType").asText();
        if (type.equals("ERASED")) {
            dataKeys.put(id, "");
        }
        String wrapped = dataKeys.get(id);
        if ("".equals(wrapped)) {
            forget(id, revision);
            return;
        }
        JsonNode person = change;
        if (change.hasNonNull("sealed")) {
            try {
                if (wrapped == null) {
                    throw new Refused("it has not come");
                }
                byte[] dataKey = open(wrapped, sealingKeys, "data-key/" + id);
                person = JSON.readTree(open(change.path("sealed").asText(), List.of(dataKey), "customer/" + id + "/" + revision));
            } catch (Refused | GeneralSecurityException | IllegalArgumentException error) {
                // Its key has not come yet, or another one has. That proves nothing: it waits, and nobody else with it.
                waiting.computeIfAbsent(id, none -> new ArrayList<>()).add(change);
                System.err.printf("consumer: %s, revision %d, waits for its key: %s%n", id, revision, error.getMessage());
                return;
            }
        }
        ObjectNode customer = JSON.createObjectNode();
        customer.put("id", id).put("revision", revision).put("changeType", type);
        customer.set("name", person.required("name"));
        customer.set("email", person.required("contact").path("email"));
        customers.put(id, customer);
        System.out.println(JSON.writeValueAsString(customer));
    }

    private void forget(String id, long revision) throws java.io.IOException {
        waiting.remove(id);
        ObjectNode known = customers.get(id);
        long newest = known == null ? 0 : known.path("revision").asLong();
        if (known != null && known.path("changeType").asText().equals("ERASED") && newest >= revision) {
            return;
        }
        ObjectNode customer = JSON.createObjectNode();
        customer.put("id", id).put("revision", Math.max(revision, newest)).put("changeType", "ERASED");
        customers.put(id, customer);
        System.out.println(JSON.writeValueAsString(customer));
    }
}
