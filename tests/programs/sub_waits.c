/* SPDX-License-Identifier: Apache-2.0
 *
 * System calls that wait, ended by a signal: EINTR or made again, as SA_RESTART says. And timers.
 */
#include "subcases.h"
#include <linux/futex.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/uio.h>

static volatile int seen;
static int pipes[2];

static void count(int sig)
{
    (void)sig;
    seen++;
}

static int restarting;

/* What is made again ends, since on the second signal what it waits for happens. Where it is not, only a signal ends it. */
static void count_and_write(int sig)
{
    (void)sig;
    if (++seen == 2 && restarting) {
        MUST(write(pipes[1], "x", 1) == 1);
        struct itimerval none = {{0, 0}, {0, 0}};
        setitimer(ITIMER_REAL, &none, NULL);
    }
}

static void tick(void (*handler)(int), int flags)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    struct itimerval every = {{0, 15000}, {0, 15000}};
    restarting = flags == SA_RESTART;
    MUST(pipe(pipes) == 0 && sigaction(SIGALRM, &action, NULL) == 0);
    setitimer(ITIMER_REAL, &every, NULL);
}

static void one_signal(void)
{
    struct sigaction action = {.sa_handler = count, .sa_flags = SA_RESTART};
    struct itimerval once = {{0, 0}, {0, 15000}};
    MUST(pipe(pipes) == 0 && sigaction(SIGALRM, &action, NULL) == 0);
    setitimer(ITIMER_REAL, &once, NULL);
}

#define BOTH(name, call)                                                                                                       \
    SUBCASE(name##_interrupted)                                                                                                \
    {                                                                                                                          \
        char c[64] = "";                                                                                                       \
        (void)c;                                                                                                               \
        tick(count_and_write, 0);                                                                                              \
        SHOW(call);                                                                                                            \
    }                                                                                                                          \
    SUBCASE(name##_restarted)                                                                                                  \
    {                                                                                                                          \
        char c[64] = "";                                                                                                       \
        (void)c;                                                                                                               \
        tick(count_and_write, SA_RESTART);                                                                                     \
        SHOW(call);                                                                                                            \
    }

BOTH(read, read(pipes[0], c, 1))
BOTH(readv, readv(pipes[0], (struct iovec[]){{c, 1}}, 1))
BOTH(poll, poll(&(struct pollfd){pipes[0], POLLIN, 0}, 1, 5000))
BOTH(ppoll, ppoll(&(struct pollfd){pipes[0], POLLIN, 0}, 1, NULL, NULL))

static int select_pipe(void)
{
    fd_set set;
    FD_ZERO(&set);
    FD_SET(pipes[0], &set);
    return select(pipes[0] + 1, &set, NULL, NULL, NULL);
}
BOTH(select, select_pipe())

static int pselect_pipe(void)
{
    fd_set set;
    sigset_t none;
    struct timespec limit = {5, 0};
    sigemptyset(&none);
    FD_ZERO(&set);
    FD_SET(pipes[0], &set);
    return pselect(pipes[0] + 1, &set, NULL, NULL, &limit, &none);
}
BOTH(pselect, pselect_pipe())

static int epoll_of_pipe(const sigset_t *mask)
{
    int e = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    epoll_ctl(e, EPOLL_CTL_ADD, pipes[0], &event);
    return epoll_pwait(e, &event, 1, -1, mask);
}
BOTH(epoll_wait, epoll_of_pipe(NULL))

static int epoll_masked(void)
{
    sigset_t none;
    sigemptyset(&none);
    return epoll_of_pipe(&none);
}
BOTH(epoll_pwait, epoll_masked())

static void *write_later(void *argument)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    while (seen < 2 || !restarting)
        sleep_ms(1);
    ((void (*)(void))argument)();
    return NULL;
}

static void helper(void (*body)(void))
{
    pthread_t thread;
    pthread_create(&thread, NULL, write_later, (void *)body);
}

static int word;
static void wake_word(void)
{
    word = 1;
    syscall(SYS_futex, &word, FUTEX_WAKE, 1, NULL, NULL, 0);
}
static long futex_forever(void)
{
    helper(wake_word);
    long result = syscall(SYS_futex, &word, FUTEX_WAIT, 0, NULL, NULL, 0);
    return result < 0 && errno == EAGAIN ? 0 : result; /* both signals came before it */
}
static long futex_limited(void)
{
    struct timespec limit = {5, 0};
    helper(wake_word);
    long result = syscall(SYS_futex, &word, FUTEX_WAIT, 0, &limit, NULL, 0);
    return result < 0 && errno == EAGAIN ? 0 : result;
}
BOTH(futex, futex_forever())
BOTH(futex_timeout, futex_limited())

static sem_t semaphore;
static void post(void)
{
    sem_post(&semaphore);
}
static int wait_semaphore(void)
{
    sem_init(&semaphore, 0, 0);
    helper(post);
    return sem_wait(&semaphore);
}
BOTH(sem_wait, wait_semaphore())

static int socket_pair[2];
static void send_byte(void)
{
    MUST(write(socket_pair[1], "x", 1) == 1);
}
static long receive(void)
{
    char c;
    socketpair(AF_UNIX, SOCK_STREAM, 0, socket_pair);
    helper(send_byte);
    return recv(socket_pair[0], &c, 1, 0);
}
BOTH(recv, receive())

static long receive_limited(void)
{
    char c;
    struct timeval limit = {5, 0};
    socketpair(AF_UNIX, SOCK_STREAM, 0, socket_pair);
    setsockopt(socket_pair[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    helper(send_byte);
    return recv(socket_pair[0], &c, 1, 0);
}
BOTH(recv_with_timeout, receive_limited())

static struct sockaddr_in listening = {.sin_family = AF_INET};
static void connect_to(void)
{
    int s = socket(AF_INET, SOCK_STREAM, 0);
    MUST(connect(s, (struct sockaddr *)&listening, sizeof listening) == 0);
}
static int accept_one(void)
{
    socklen_t bytes = sizeof listening;
    int s = socket(AF_INET, SOCK_STREAM, 0);
    listening.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    MUST(bind(s, (struct sockaddr *)&listening, bytes) == 0 && listen(s, 1) == 0);
    getsockname(s, (struct sockaddr *)&listening, &bytes);
    helper(connect_to);
    return accept(s, NULL, NULL) > 0 ? 1 : -1;
}
BOTH(accept, accept_one())

static int queue;
static void send_message(void)
{
    struct {
        long type;
        char text[1];
    } m = {1, "x"};
    msgsnd(queue, &m, 1, 0);
}
static long receive_message(void)
{
    struct {
        long type;
        char text[1];
    } m;
    MUST((queue = msgget(IPC_PRIVATE, 0600)) >= 0);
    helper(send_message);
    long result = msgrcv(queue, &m, 1, 0, 0);
    int error = errno;
    msgctl(queue, IPC_RMID, NULL);
    errno = error;
    return result;
}
BOTH(msgrcv, receive_message())

static int set_of_semaphores;
static void up(void)
{
    struct sembuf op = {0, 1, 0};
    semop(set_of_semaphores, &op, 1);
}
static int down(void)
{
    struct sembuf op = {0, -1, 0};
    MUST((set_of_semaphores = semget(IPC_PRIVATE, 1, 0600)) >= 0);
    helper(up);
    int result = semop(set_of_semaphores, &op, 1), error = errno;
    semctl(set_of_semaphores, 0, IPC_RMID);
    errno = error;
    return result;
}
BOTH(semop, down())

static pid_t child;
static void end_child(void)
{
    kill(child, SIGKILL);
}
static int wait_child(void)
{
    if ((child = fork()) == 0)
        for (;;)
            pause();
    helper(end_child);
    return waitpid(child, NULL, 0) > 0 ? 1 : -1;
}
BOTH(waitpid, wait_child())

static int waitid_child(void)
{
    siginfo_t info;
    if ((child = fork()) == 0)
        for (;;)
            pause();
    helper(end_child);
    return waitid(P_PID, (id_t)child, &info, WEXITED);
}
BOTH(waitid, waitid_child())

static int lock_file[2];
static void unlock(void)
{
    flock(lock_file[0], LOCK_UN);
}
static int lock(void)
{
    lock_file[0] = open("lock", O_RDWR | O_CREAT, 0600);
    lock_file[1] = open("lock", O_RDWR);
    flock(lock_file[0], LOCK_EX);
    helper(unlock);
    return flock(lock_file[1], LOCK_EX);
}
BOTH(flock, lock())

static int event;
static void add(void)
{
    eventfd_write(event, 7);
}
static long read_event(void)
{
    eventfd_t value = 0;
    event = eventfd(0, 0);
    helper(add);
    return eventfd_read(event, &value) == 0 ? (long)value : -1;
}
BOTH(eventfd, read_event())

static void make_file(void)
{
    close(open("made", O_CREAT | O_WRONLY, 0600));
}
static long read_inotify(void)
{
    char buffer[4096];
    int fd = inotify_init1(0);
    inotify_add_watch(fd, ".", IN_CREATE);
    helper(make_file);
    return read(fd, buffer, sizeof buffer) > 0 ? 1 : -1;
}
BOTH(inotify, read_inotify())

static mqd_t mail;
static void send_mail(void)
{
    mq_send(mail, "x", 1, 0);
}
static long receive_mail(void)
{
    char c[16];
    struct mq_attr attributes = {.mq_maxmsg = 2, .mq_msgsize = 16};
    MUST((mail = mq_open("/bdbi_sub_waits", O_CREAT | O_RDWR, 0600, &attributes)) != (mqd_t)-1);
    mq_unlink("/bdbi_sub_waits");
    helper(send_mail);
    return mq_receive(mail, c, 16, NULL);
}
BOTH(mq_receive, receive_mail())

static void open_other_end(void)
{
    close(open("fifo", O_WRONLY));
}
static int open_fifo(void)
{
    mkfifo("fifo", 0600);
    helper(open_other_end);
    return open("fifo", O_RDONLY) >= 0 ? 1 : -1;
}
SUBCASE(open_fifo_restarted)
{
    tick(count_and_write, SA_RESTART);
    SHOW(open_fifo());
    printf("signals %d\n", seen);
}

SUBCASE(nanosleep_interrupted)
{
    struct timespec t = {5, 0}, left = {0, 0};
    one_signal();
    SHOW(nanosleep(&t, &left));
    printf("signals %d, left %d\n", seen, left.tv_sec == 4);
}

SUBCASE(clock_nanosleep_interrupted)
{
    struct timespec t = {5, 0}, left = {0, 0}, at;
    one_signal();
    SHOW(clock_nanosleep(CLOCK_MONOTONIC, 0, &t, &left));
    printf("signals %d, left %d\n", seen, left.tv_sec == 4);
    struct itimerval once = {{0, 0}, {0, 15000}};
    setitimer(ITIMER_REAL, &once, NULL);
    clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_sec += 5;
    SHOW(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL));
    printf("signals %d\n", seen);
}

SUBCASE(pause_interrupted)
{
    one_signal();
    SHOW(pause());
    printf("signals %d\n", seen);
}

SUBCASE(pipe_write_interrupted)
{
    static char block[65536];
    tick(count, 0);
    MUST(write(pipes[1], block, sizeof block) == sizeof block);
    SHOW(write(pipes[1], block, 1));
}

static void drain(int sig)
{
    static char block[65536];
    (void)sig;
    seen++;
    MUST(read(pipes[0], block, sizeof block) > 0 || errno == EAGAIN); /* it may come before the write */
}

SUBCASE(pipe_write_partial)
{
    static char block[200000];
    struct sigaction action = {.sa_handler = drain, .sa_flags = SA_RESTART};
    struct itimerval every = {{0, 15000}, {0, 15000}};
    MUST(pipe(pipes) == 0 && fcntl(pipes[0], F_SETFL, O_NONBLOCK) == 0 && sigaction(SIGALRM, &action, NULL) == 0);
    setitimer(ITIMER_REAL, &every, NULL);
    long n = write(pipes[1], block, sizeof block);
    printf("partial %d\n", n > 0 && n <= (long)sizeof block);
}

/* A stop and a continue restart what no handler interrupts. */
SUBCASE(stop_and_continue)
{
    struct timespec t = {0, 200000000};
    struct pollfd none = {-1, 0, 0};
    pid_t parent = getpid();
    fflush(stdout);
    if (fork() == 0) {
        for (int i = 0; i < 4; i++) {
            sleep_ms(10);
            kill(parent, SIGSTOP);
            sleep_ms(10);
            kill(parent, SIGCONT);
        }
        _exit(0);
    }
    SHOW(nanosleep(&t, NULL));
    SHOW(poll(&none, 1, 100));
    SHOW(waitpid(-1, NULL, 0) > 0);
}

SUBCASE(ignored_signal_does_not_interrupt)
{
    struct timespec t = {0, 60000000};
    pid_t parent = getpid();
    signal(SIGUSR1, SIG_IGN);
    fflush(stdout);
    if (fork() == 0) {
        sleep_ms(15);
        kill(parent, SIGUSR1);
        kill(parent, SIGCHLD);
        _exit(0);
    }
    SHOW(nanosleep(&t, NULL));
}

/* ---- timers ---- */

static siginfo_t last;
static pid_t last_thread;
static volatile int most_overruns;

static void keep(int sig, siginfo_t *info, void *context)
{
    (void)sig, (void)context;
    last = *info;
    if (info->si_code == SI_TIMER && info->si_overrun > most_overruns)
        most_overruns = info->si_overrun;
    last_thread = (pid_t)syscall(SYS_gettid);
    seen++;
}

static void on_info(int sig)
{
    struct sigaction action = {.sa_sigaction = keep, .sa_flags = SA_SIGINFO};
    MUST(sigaction(sig, &action, NULL) == 0);
}

SUBCASE(virtual_timer)
{
    struct itimerval every = {{0, 2000}, {0, 2000}};
    on_info(SIGVTALRM);
    on_info(SIGPROF);
    setitimer(ITIMER_VIRTUAL, &every, NULL);
    while (seen < 5)
        ;
    printf("virtual: code %d\n", last.si_code);
    setitimer(ITIMER_VIRTUAL, &(struct itimerval){{0, 0}, {0, 0}}, NULL);
    seen = 0;
    setitimer(ITIMER_PROF, &every, NULL);
    while (seen < 5)
        ;
    printf("profiling: signal %d\n", last.si_signo);
}

SUBCASE(itimer_values)
{
    struct itimerval old = {{0, 0}, {0, 0}}, set = {{7, 5}, {1000, 5}};
    on_info(SIGALRM);
    SHOW(setitimer(ITIMER_REAL, &set, &old));
    printf("%ld %ld\n", (long)old.it_value.tv_sec, (long)old.it_interval.tv_sec);
    SHOW(getitimer(ITIMER_REAL, &old));
    printf("%d %ld\n", old.it_value.tv_sec >= 990, (long)old.it_interval.tv_sec);
    SHOW(alarm(0) > 990);
    SHOW(setitimer(9, &set, NULL));
}

static timer_t make_timer(int notify, int sig)
{
    timer_t timer;
    struct sigevent e = {.sigev_notify = notify, .sigev_signo = sig};
    e.sigev_value.sival_int = 77;
    if (notify == SIGEV_THREAD_ID)
        e._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    MUST(timer_create(CLOCK_MONOTONIC, &e, &timer) == 0);
    return timer;
}

SUBCASE(timer_signal)
{
    struct itimerspec every = {{0, 2000000}, {0, 2000000}};
    on_info(SIGRTMIN + 2);
    timer_t timer = make_timer(SIGEV_SIGNAL, SIGRTMIN + 2);
    timer_settime(timer, 0, &every, NULL);
    while (seen < 5)
        ;
    printf("code %d value %d\n", last.si_code, last.si_value.sival_int);
    SHOW(timer_delete(timer));
    SHOW(timer_delete(timer));
}

SUBCASE(timer_overrun)
{
    struct itimerspec every = {{0, 1000000}, {0, 1000000}};
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 2);
    on_info(SIGRTMIN + 2);
    sigprocmask(SIG_BLOCK, &set, NULL);
    timer_t timer = make_timer(SIGEV_SIGNAL, SIGRTMIN + 2);
    timer_settime(timer, 0, &every, NULL);
    sleep_ms(30);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    printf("overrun %d\n", most_overruns > 5);
}

static void *with_timer(void *argument)
{
    struct itimerspec every = {{0, 2000000}, {0, 2000000}};
    timer_t timer = make_timer(SIGEV_THREAD_ID, SIGRTMIN + 3);
    timer_settime(timer, 0, &every, NULL);
    while (seen < 5)
        ;
    printf("on this thread %d\n", last_thread == syscall(SYS_gettid));
    timer_delete(timer);
    return argument;
}

SUBCASE(timer_thread_id)
{
    pthread_t thread;
    on_info(SIGRTMIN + 3);
    pthread_create(&thread, NULL, with_timer, NULL);
    pthread_join(thread, NULL);
}

static void notified(union sigval value)
{
    last.si_value = value;
    __atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST);
}

SUBCASE(timer_thread)
{
    timer_t timer;
    struct itimerspec every = {{0, 3000000}, {0, 3000000}};
    struct sigevent e = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = notified};
    e.sigev_value.sival_int = 99;
    MUST(timer_create(CLOCK_REALTIME, &e, &timer) == 0);
    timer_settime(timer, 0, &every, NULL);
    while (__atomic_load_n(&seen, __ATOMIC_SEQ_CST) < 3)
        sleep_ms(1);
    printf("value %d\n", last.si_value.sival_int);
    timer_delete(timer);
}

SUBCASE(timerfd)
{
    uint64_t n = 0;
    struct itimerspec every = {{0, 2000000}, {0, 2000000}};
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    timerfd_settime(fd, 0, &every, NULL);
    sleep_ms(20);
    SHOW(read(fd, &n, sizeof n));
    printf("expired %d\n", n >= 5);
}

SUBCASE(rlimit_cpu)
{
    struct {
        unsigned long soft, hard;
    } limit = {1, 3};
    on_info(SIGXCPU);
    syscall(SYS_setrlimit, 0, &limit); /* RLIMIT_CPU */
    while (!seen)
        ;
    printf("signal %d code %d\n", last.si_signo, last.si_code);
}

/* ---- children ---- */

static void reap(int sig, siginfo_t *info, void *context)
{
    (void)sig, (void)context;
    last = *info;
    while (waitpid(-1, NULL, WNOHANG) > 0)
        __atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST);
}

SUBCASE(children_reaped_in_handler)
{
    struct sigaction action = {.sa_sigaction = reap, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigaction(SIGCHLD, &action, NULL);
    for (int i = 0; i < 30; i++)
        if (fork() == 0)
            _exit(i);
    while (seen < 30)
        sleep_ms(1);
    printf("seen %d, code %d\n", seen, last.si_code);
}

SUBCASE(child_information)
{
    siginfo_t info;
    sigset_t set;
    int ways[] = {0, SIGKILL, SIGABRT};
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    for (int i = 0; i < 3; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            if (ways[i])
                raise(ways[i]);
            _exit(42);
        }
        sigwaitinfo(&set, &info);
        printf("code %d status %d pid %d uid %d\n", info.si_code, info.si_status, info.si_pid == pid, info.si_uid == getuid());
        waitpid(pid, NULL, 0);
    }
}

SUBCASE(stopped_children)
{
    struct sigaction action = {.sa_sigaction = keep, .sa_flags = SA_SIGINFO | SA_NOCLDSTOP};
    for (int i = 0; i < 2; i++) {
        seen = 0;
        sigaction(SIGCHLD, &action, NULL);
        pid_t pid = fork();
        if (pid == 0)
            for (;;)
                pause();
        kill(pid, SIGSTOP);
        waitpid(pid, NULL, WUNTRACED);
        kill(pid, SIGCONT);
        waitpid(pid, NULL, WCONTINUED);
        /* Waiting may end before the child sends the signal, natively too. */
        for (int ms = 0; ms < (i ? 5000 : 20) && !seen; ms++)
            usleep(1000);
        printf("signals while it stopped and went on: %d\n", seen > 0);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        action.sa_flags = SA_SIGINFO | SA_RESTART;
    }
}

static void no_zombies(int flags, void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    sigaction(SIGCHLD, &action, NULL);
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    SHOW(waitpid(pid, NULL, 0));
    SHOW(wait(NULL));
}

SUBCASE(children_ignored)
{
    no_zombies(0, SIG_IGN);
}

SUBCASE(children_nocldwait)
{
    no_zombies(SA_NOCLDWAIT, SIG_DFL);
}

SUBCASE(children_nocldwait_handled)
{
    no_zombies(SA_NOCLDWAIT | SA_RESTART, count);
}

/* ---- a signal at every place ---- */

static volatile uint64_t sum;

static uint64_t work(uint64_t n)
{
    uint64_t a = 1, b = 2, c = 3;
    for (uint64_t i = 0; i < n; i++) {
        a = a * 6364136223846793005ull + b;
        b ^= a >> (i & 31);
        c += b < a ? i : c;
        if ((a & 63) == 7)
            c = c * 3 + 1;
    }
    return a ^ b ^ c;
}

static void disturb(int sig)
{
    (void)sig;
    sum += work(3);
    seen++;
}

static void *sender(void *argument)
{
    pthread_t target = *(pthread_t *)argument;
    for (int i = 0; i < 3000; i++)
        pthread_kill(target, i % 2 ? SIGUSR1 : SIGRTMIN + 1);
    return NULL;
}

SUBCASE(storm_on_computation)
{
    struct sigaction action = {.sa_handler = disturb, .sa_flags = SA_RESTART};
    pthread_t thread, self = pthread_self();
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGRTMIN + 1, &action, NULL);
    pthread_create(&thread, NULL, sender, &self);
    uint64_t result = 0;
    for (int i = 0; i < 60; i++)
        result ^= work(20000 + (uint64_t)i);
    pthread_join(thread, NULL);
    printf("%lx, disturbed %d\n", result, seen >= 1000);
}

static int compare(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

SUBCASE(storm_on_library)
{
    struct sigaction action = {.sa_handler = disturb, .sa_flags = SA_RESTART};
    struct itimerval every = {{0, 50}, {0, 50}};
    static int numbers[5000];
    char text[64];
    unsigned hash = 0;
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &every, NULL);
    for (int round = 0; round < 40; round++) {
        for (int i = 0; i < 5000; i++)
            numbers[i] = (i * 7919 + round) % 10007;
        qsort(numbers, 5000, sizeof *numbers, compare);
        for (int i = 0; i < 300; i++) {
            int n = snprintf(text, sizeof text, "%d %.6f %s", numbers[i * 7], i / 7.0, i % 2 ? "odd" : "even");
            for (int k = 0; k < n; k++)
                hash = hash * 31 + (unsigned char)text[k];
        }
    }
    printf("%x\n", hash);
}

SUBCASE(storm_on_system_calls)
{
    struct sigaction action = {.sa_handler = disturb, .sa_flags = SA_RESTART};
    pthread_t thread, self = pthread_self();
    int p[2], wrong = 0;
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGRTMIN + 1, &action, NULL);
    MUST(pipe(p) == 0);
    pthread_create(&thread, NULL, sender, &self);
    for (int i = 0; i < 4000; i++) {
        char out = (char)i, in = 0;
        wrong += write(p[1], &out, 1) != 1;
        wrong += read(p[0], &in, 1) != 1 || in != out;
        wrong += getppid() <= 0;
    }
    pthread_join(thread, NULL);
    printf("wrong %d\n", wrong);
}
