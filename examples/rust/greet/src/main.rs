fn main() {
    println!("{}", phrase::count_to(std::env::args().count()));
}
