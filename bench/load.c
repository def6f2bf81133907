/* Asks a server for many answers and says how long they took, as one JSON object. Times are in microseconds.
 *
 *   load -p PORT [-m MODEL] [-c CONNECTIONS] [-n REQUESTS | -d SECONDS] [-b BODY_BYTES] [-e EVENTS,PAUSE_US,BYTES]
 *        [-w MS] [-u PATH]
 *
 * Each connection asks again as soon as its answer is whole. The request looks like one of the OpenAI client for Python,
 * with a conversation that fills the body. -e asks for streams; an answer counts only if all events and the end of the
 * stream came. `event` is the time from an event's sending to its arrival, `first` from the request to the first event.
 * -w rests once, after the head of each answer, before it reads on.
 */
#include "common.h"

enum { HEAD_MAX = 32768, TAIL = 64 };
enum place { IDLE, CONNECTING, SENDING, IN_HEAD, IN_BODY };
enum framing { COUNTED, CHUNKED, UNTIL_CLOSE };

typedef struct {
    float *values;
    size_t count, room;
} samples;

typedef struct {
    int fd, status, keep_alive, events, digits, tail_size, rested;
    enum place place;
    enum framing framing;
    size_t sent, head_size;
    long long body_left;
    /* Chunks: in a size line, in data, behind data, in the trailer. */
    enum { SIZE, DATA, AFTER, TRAILER } chunk;
    long long chunk_size;
    int line_size;
    uint64_t began, stamp;
    char head[HEAD_MAX], tail[TAIL];
} conn;

static int epoll_fd, port, connections = 1, events_wanted, pause_us, event_bytes = 500, rest_ms;
static long long total, body_bytes = 1024, started, ended, ok, refused, bad_status, cut, incomplete, all_events, all_bytes;
static double seconds;
static const char *model = "bench", *path = "/v1/chat/completions";
static char *request;
static size_t request_size;
static samples whole, first, event;
static conn *conns;
static int stopping;
static char reads[1 << 18];

static void add(samples *s, uint64_t ns) {
    if (s->count == s->room) s->values = grow(s->values, sizeof *s->values * (s->room = s->room ? s->room * 2 : 4096));
    s->values[s->count++] = (float)((double)ns / 1e3);
}

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void print_samples(const char *name, samples *s) {
    printf(",\"%s\":{\"count\":%zu", name, s->count);
    if (s->count) {
        static const struct { const char *name; double part; } points[] = {{"p50", .5}, {"p90", .9}, {"p99", .99}, {"max", 1}};
        qsort(s->values, s->count, sizeof *s->values, ascending);
        for (int i = 0; i < 4; i++) {
            size_t at = (size_t)(points[i].part * (double)(s->count - 1) + .5);
            printf(",\"%s\":%.1f", points[i].name, (double)s->values[at]);
        }
    }
    printf("}");
}

static void disconnect(conn *c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
    c->place = IDLE;
}

static int more_wanted(void) { return !stopping && (!total || started < total); }

static void begin(conn *c);

static void end(conn *c, long long *kind) {
    ended++;
    ++*kind;
    if (kind == &ok) add(&whole, now_ns() - c->began);
    if (kind != &ok || !c->keep_alive) disconnect(c);
    c->place = IDLE;
}

static void send_on(conn *c) {
    while (c->sent < request_size) {
        ssize_t written = send(c->fd, request + c->sent, request_size - c->sent, MSG_NOSIGNAL);
        if (written < 0 && errno == EAGAIN) {
            watch(epoll_fd, EPOLL_CTL_MOD, c->fd, EPOLLIN | EPOLLOUT, c);
            c->place = SENDING;
            return;
        }
        if (written < 0) break; /* the answer may be there already: it is read next */
        c->sent += (size_t)written;
    }
    if (c->place != IN_HEAD && c->place != IDLE) watch(epoll_fd, EPOLL_CTL_MOD, c->fd, EPOLLIN, c);
    c->place = IN_HEAD;
}

static void begin(conn *c) {
    int fd = c->fd;
    started++;
    c->status = c->events = c->tail_size = c->rested = c->line_size = 0;
    c->digits = -1;
    c->keep_alive = 1;
    c->sent = c->head_size = 0;
    c->chunk = SIZE;
    c->chunk_size = 0;
    c->began = now_ns();
    if (fd >= 0) {
        send_on(c);
        return;
    }
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    no_delay(c->fd);
    struct sockaddr_in address = loopback(port);
    c->place = CONNECTING;
    watch(epoll_fd, EPOLL_CTL_ADD, c->fd, EPOLLIN | EPOLLOUT, c);
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS) end(c, &refused);
}

static void complete(conn *c) {
    int is_whole = !events_wanted || (c->events == events_wanted && memmem(c->tail, (size_t)c->tail_size, "[DONE]", 6));
    end(c, c->status != 200 ? &bad_status : is_whole ? &ok : &incomplete);
}

static void find_events(conn *c, const char *data, size_t size) {
    uint64_t now = now_ns();
    for (const char *limit = data + size; data < limit;) {
        if (c->digits < 0) {
            data = memchr(data, STAMP, (size_t)(limit - data));
            if (!data) return;
            data++;
            c->digits = 0;
            c->stamp = 0;
            continue;
        }
        unsigned digit = (unsigned char)*data - '0';
        if (digit > 9) {
            c->digits = -1;
            continue;
        }
        data++;
        c->stamp = c->stamp * 10 + digit;
        if (++c->digits < STAMP_DIGITS) continue;
        c->digits = -1;
        all_events++;
        add(&event, now - c->stamp);
        if (c->events++ == 0) add(&first, now - c->began);
    }
}

static void take_body(conn *c, const char *data, size_t size) {
    all_bytes += (long long)size;
    if (!events_wanted) return;
    find_events(c, data, size);
    size_t keep = size < TAIL ? size : TAIL, old = (size_t)c->tail_size < TAIL - keep ? (size_t)c->tail_size : TAIL - keep;
    memmove(c->tail, c->tail + c->tail_size - old, old);
    memcpy(c->tail + old, data + size - keep, keep);
    c->tail_size = (int)(old + keep);
}

/* Whether the body is whole now. */
static int take_chunks(conn *c, const char *data, size_t size) {
    while (size) {
        if (c->chunk == DATA) {
            size_t part = size < (size_t)c->chunk_size ? size : (size_t)c->chunk_size;
            take_body(c, data, part);
            data += part, size -= part, c->chunk_size -= (long long)part;
            if (!c->chunk_size) c->chunk = AFTER;
            continue;
        }
        char letter = *data++;
        size--;
        if (letter == '\r') continue;
        if (letter != '\n') {
            unsigned digit = letter <= '9' ? (unsigned)(letter - '0') : (unsigned)((letter | 32) - 'a' + 10);
            if (c->chunk == SIZE && digit < 16) c->chunk_size = c->chunk_size * 16 + digit;
            c->line_size++;
        } else if (c->chunk == AFTER) {
            c->chunk = SIZE, c->chunk_size = 0, c->line_size = 0;
        } else if (c->chunk == SIZE) {
            c->chunk = c->chunk_size ? DATA : TRAILER, c->line_size = 0;
        } else if (!c->line_size) {
            return 1;
        } else {
            c->line_size = 0;
        }
    }
    return 0;
}

static const char *header(const char *head, const char *name) {
    for (const char *line = strchr(head, '\n'); line; line = strchr(line, '\n')) {
        if (!strncasecmp(++line, name, strlen(name))) return line + strlen(name) + strspn(line + strlen(name), " ");
    }
    return NULL;
}

static void read_head(conn *c) {
    sscanf(c->head, "HTTP/1.%*c %d", &c->status);
    const char *length = header(c->head, "content-length:"), *connection = header(c->head, "connection:");
    c->framing = header(c->head, "transfer-encoding:") ? CHUNKED : length ? COUNTED : UNTIL_CLOSE;
    c->body_left = length ? atoll(length) : -1;
    c->keep_alive = c->framing != UNTIL_CLOSE && !(connection && !strncasecmp(connection, "close", 5));
    c->place = IN_BODY;
}

static void take(conn *c, const char *data, size_t size) {
    if (c->place == IDLE) {
        disconnect(c);
        return;
    }
    if (c->place != IN_BODY) {
        size_t old = c->head_size, part = size < HEAD_MAX - 1 - old ? size : HEAD_MAX - 1 - old;
        memcpy(c->head + old, data, part);
        c->head_size += part;
        char *limit = memmem(c->head, c->head_size, "\r\n\r\n", 4);
        if (!limit) {
            if (c->head_size == HEAD_MAX - 1) end(c, &cut);
            return;
        }
        *limit = 0;
        size_t used = (size_t)(limit + 4 - c->head) - old;
        read_head(c);
        data += used, size -= used;
    }
    int is_whole = 0;
    if (c->framing == CHUNKED) {
        is_whole = take_chunks(c, data, size);
    } else {
        take_body(c, data, size);
        if (c->framing == COUNTED) is_whole = (c->body_left -= (long long)size) <= 0;
    }
    if (is_whole) complete(c);
}

static void serve(conn *c, uint32_t events) {
    if (c->fd >= 0 && events & EPOLLOUT && (c->place == CONNECTING || c->place == SENDING)) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error) {
            end(c, &refused);
            return;
        }
        send_on(c);
    }
    if (c->fd < 0 || !(events & (EPOLLIN | EPOLLHUP | EPOLLERR))) return;
    ssize_t size = recv(c->fd, reads, sizeof reads, 0);
    if (size > 0) take(c, reads, (size_t)size);
    else if (size < 0 && errno == EAGAIN) return;
    else if (c->place == IDLE) disconnect(c);
    else if (size == 0 && c->place == IN_BODY && c->framing == UNTIL_CLOSE) complete(c);
    else end(c, &cut);
    if (rest_ms && c->place == IN_BODY && !c->rested) {
        c->rested = 1;
        usleep((useconds_t)rest_ms * 1000);
    }
}

static void build_request(void) {
    static const char text[] = "The quick brown fox jumps over the lazy dog; \\\"quoted\\\", and a line break\\n. ";
    char *body = grow(NULL, (size_t)body_bytes + 4096), last[400];
    int last_size = snprintf(last, sizeof last, "\"}],\"model\":\"%s\",\"max_tokens\":512,\"temperature\":0.7%s}", model,
                             events_wanted ? ",\"stream\":true,\"stream_options\":{\"include_usage\":true}" : "");
    size_t size = (size_t)sprintf(body, "{\"messages\":[{\"role\":\"system\",\"content\":\"bench:%d,%d,%d;\"},{\"role\":\"user\",\"content\":\"",
                                  events_wanted, pause_us, event_bytes);
    for (size_t message = 0; size + sizeof text + (size_t)last_size < (size_t)body_bytes;) {
        memcpy(body + size, text, sizeof text - 1);
        size += sizeof text - 1, message += sizeof text - 1;
        if (message > 2000 && size + 200 + (size_t)last_size < (size_t)body_bytes) {
            size += (size_t)sprintf(body + size, "\"},{\"role\":\"%s\",\"content\":\"", size & 1 ? "user" : "assistant");
            message = 0;
        }
    }
    while (size + (size_t)last_size < (size_t)body_bytes) body[size++] = 'x';
    memcpy(body + size, last, (size_t)last_size);
    size += (size_t)last_size;
    request = grow(NULL, size + 2048);
    request_size = (size_t)sprintf(request,
        "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: application/json\r\nAccept-Encoding: identity\r\n"
        "Connection: keep-alive\r\nContent-Type: application/json\r\nUser-Agent: OpenAI/Python 3.0.0\r\n"
        "X-Stainless-Lang: python\r\nX-Stainless-Package-Version: 3.0.0\r\nX-Stainless-OS: Linux\r\n"
        "X-Stainless-Arch: x64\r\nX-Stainless-Runtime: CPython\r\nX-Stainless-Runtime-Version: 3.11.2\r\n"
        "X-Stainless-Async: async:asyncio\r\nX-Stainless-Retry-Count: 0\r\nX-Stainless-Read-Timeout: 600\r\n"
        "Authorization: Bearer sk-local\r\nContent-Length: %zu\r\n\r\n", path, port, size);
    memcpy(request + request_size, body, size);
    request_size += size;
    free(body);
}

static void read_options(int count, char **words) {
    for (int option; (option = getopt(count, words, "p:m:c:n:d:b:e:w:u:")) != -1;) {
        switch (option) {
            case 'p': port = atoi(optarg); break;
            case 'm': model = optarg; break;
            case 'c': connections = atoi(optarg); break;
            case 'n': total = atoll(optarg); break;
            case 'd': seconds = atof(optarg); break;
            case 'b': body_bytes = atoll(optarg); break;
            case 'e': sscanf(optarg, "%d,%d,%d", &events_wanted, &pause_us, &event_bytes); break;
            case 'w': rest_ms = atoi(optarg); break;
            case 'u': path = optarg; break;
            default: exit(2);
        }
    }
    if (!port || connections < 1 || strlen(model) > 200 || strlen(path) > 500) {
        fprintf(stderr, "usage: load -p PORT [-m MODEL] [-c N] [-n N | -d S] [-b BYTES] [-e N,US,BYTES] [-w MS] [-u PATH]\n");
        exit(2);
    }
    if (!total && seconds == 0) total = connections;
}

int main(int count, char **words) {
    read_options(count, words);
    signal(SIGPIPE, SIG_IGN);
    build_request();
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    conns = memset(grow(NULL, sizeof *conns * (size_t)connections), 0, sizeof *conns * (size_t)connections);
    uint64_t began = now_ns(), limit = seconds > 0 ? began + (uint64_t)(seconds * 1e9) : 0;
    for (int i = 0; i < connections; i++) conns[i].fd = -1;
    for (int i = 0; i < connections && more_wanted(); i++) begin(&conns[i]);
    struct epoll_event ready[512];
    while (started != ended || more_wanted()) {
        int found = epoll_wait(epoll_fd, ready, 512, 100);
        if (limit && now_ns() >= limit) stopping = 1;
        for (int i = 0; i < found; i++) {
            conn *c = ready[i].data.ptr;
            serve(c, ready[i].events);
            if (c->place == IDLE && more_wanted()) begin(c);
        }
    }
    double spent = (double)(now_ns() - began) / 1e9;
    printf("{\"seconds\":%.4f,\"ok\":%lld,\"refused\":%lld,\"bad_status\":%lld,\"cut\":%lld,\"incomplete\":%lld,\"events\":%lld,\"bytes\":%lld",
           spent, ok, refused, bad_status, cut, incomplete, all_events, all_bytes);
    print_samples("whole", &whole);
    print_samples("first", &first);
    print_samples("event", &event);
    printf("}\n");
    return 0;
}
