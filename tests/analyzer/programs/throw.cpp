// SPDX-License-Identifier: Apache-2.0
//
// Exceptions: landing pads, clean-ups, rethrow, virtual calls; run under the tracer.
#include <stdexcept>
#include <string>
#include <vector>

static volatile int sink;

struct Guard {
    ~Guard()
    {
        sink = sink + 1;
    }
};

struct Shape {
    virtual ~Shape() = default;
    virtual int area() const = 0;
};

struct Square : Shape {
    int area() const override
    {
        return 4;
    }
};

struct Broken : Shape {
    int area() const override
    {
        throw std::runtime_error("no area");
    }
};

__attribute__((noinline)) static int measure(const Shape &shape)
{
    Guard guard;
    std::string name("a name that is too long to be stored in place");
    try {
        return shape.area() + static_cast<int>(name.size());
    } catch (const std::logic_error &) {
        return 1;
    } catch (const std::runtime_error &e) {
        Guard inner;
        if (sink > 1000)
            return 2;
        throw;
    }
}

int main()
{
    Square square;
    Broken broken;
    std::vector<const Shape *> shapes{&square, &broken, &square};
    for (const Shape *shape : shapes) {
        try {
            sink = sink + measure(*shape);
        } catch (const std::exception &e) {
            sink = sink + static_cast<int>(std::string(e.what()).size());
        }
    }
    try {
        throw 7;
    } catch (...) {
        sink = sink + 1;
    }
    return 0;
}
