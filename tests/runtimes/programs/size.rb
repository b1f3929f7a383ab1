# What Ruby's own library and Puma's settings make of the limits.
require "etc"
require "puma"
require "puma/configuration"

settings = Puma::Configuration.new
settings.load
puts "nprocessors #{Etc.nprocessors}"
puts "puma_workers #{settings.options[:workers]}"
